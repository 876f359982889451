package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
	"footfall/sources/kafka"
)

// acl is one right of one user, as SECURITY.md has it.
type acl struct {
	user string
	lack kafka.Lack // the right
}

// documented reads the lines of SECURITY.md that give rights.
func documented(t *testing.T) (acls []acl) {
	t.Helper()
	page, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	operations := map[string]kmsg.ACLOperation{
		"Read": kmsg.ACLOperationRead, "Write": kmsg.ACLOperationWrite, "Create": kmsg.ACLOperationCreate,
		"Describe": kmsg.ACLOperationDescribe, "DescribeConfigs": kmsg.ACLOperationDescribeConfigs,
	}
	for line := range strings.Lines(string(page)) {
		words := strings.Fields(line)
		if len(words) < 4 || words[0] != "acls" {
			continue
		}
		var do []kmsg.ACLOperation
		var on []kafka.Lack
		for i := 2; i < len(words); i += 2 {
			switch flag, value := words[i], words[i+1]; flag {
			case "--operation":
				if operations[value] == 0 {
					t.Fatalf("%s: operation %s", line, value)
				}
				do = append(do, operations[value])
			case "--topic", "--group", "--transactional-id":
				on = append(on, kafka.Lack{On: kafka.On(flag[2:]), Name: value})
			case "--resource-pattern-type":
				if value != "prefixed" {
					t.Fatalf("%s: pattern %s", line, value)
				}
				for i := range on {
					on[i].Prefix = true
				}
			default:
				t.Fatalf("%s: flag %s", line, flag)
			}
		}
		for _, lack := range on {
			for _, op := range do {
				lack.Do = op
				acls = append(acls, acl{words[1], lack})
			}
		}
	}
	if len(acls) < 30 {
		t.Fatalf("SECURITY.md gives only %d rights", len(acls))
	}
	return acls
}

func (a acl) resource() (kind kmsg.ACLResourceType, pattern kmsg.ACLResourcePatternType) {
	pattern = kmsg.ACLResourcePatternTypeLiteral
	if a.lack.Prefix {
		pattern = kmsg.ACLResourcePatternTypePrefixed
	}
	switch a.lack.On {
	case kafka.OnTopic:
		return kmsg.ACLResourceTypeTopic, pattern
	case kafka.OnGroup:
		return kmsg.ACLResourceTypeGroup, pattern
	default:
		return kmsg.ACLResourceTypeTransactionalId, pattern
	}
}

// grant gives rights to a user under a name: that of SECURITY.md, or another of the same person.
func (b *guardedBroker) grant(t *testing.T, principal string, acls ...acl) {
	t.Helper()
	req := kmsg.NewPtrCreateACLsRequest()
	for _, a := range acls {
		c := kmsg.NewCreateACLsRequestCreation()
		c.ResourceType, c.ResourcePatternType = a.resource()
		c.ResourceName, c.Principal, c.Host = a.lack.Name, "User:"+principal, "*"
		c.Operation, c.PermissionType = a.lack.Do, kmsg.ACLPermissionTypeAllow
		req.Creations = append(req.Creations, c)
	}
	resp, err := req.RequestWith(t.Context(), b.client)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range resp.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			t.Fatal(err)
		}
	}
}

// revoke takes one right back.
func (b *guardedBroker) revoke(t *testing.T, a acl) {
	t.Helper()
	f := kmsg.NewDeleteACLsRequestFilter()
	f.ResourceType, f.ResourcePatternType = a.resource()
	f.ResourceName, f.Principal, f.Operation, f.PermissionType = new(a.lack.Name), new("User:"+a.user), a.lack.Do, kmsg.ACLPermissionTypeAllow
	req := kmsg.NewPtrDeleteACLsRequest()
	req.Filters = append(req.Filters, f)
	resp, err := req.RequestWith(t.Context(), b.client)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(resp.Results[0].MatchingACLs); n != 1 {
		t.Fatalf("%s of %s: %d ACLs taken back, want 1", a.lack, a.user, n)
	}
}

// settled waits until the broker lacks for a user just what is named: ACLs come to it
// through its metadata log.
func (h *house) settled(needs []kafka.Need, want ...kafka.Lack) {
	h.t.Helper()
	cl, err := h.conf.connect(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	defer cl.Close()
	h.until(fmt.Sprintf("just %v", want), func() bool {
		lacks, err := kafka.Lacking(h.t.Context(), cl, needs)
		return err == nil && slices.Equal(lacks, want)
	})
}

// as is the same house as another user has it.
func (h *house) as(user string, more ...string) *house {
	h.t.Helper()
	other := &house{t: h.t, sets: append(append(slices.Clone(h.sets), "kafka.sasl.username="+user), more...)}
	var src sources
	for _, s := range other.sets {
		key, value, _ := strings.Cut(s, "=")
		src.flags = append(src.flags, setting{key: key, value: value, from: "test"})
	}
	var err error
	if other.conf, err = load(src); err != nil {
		h.t.Fatal(err)
	}
	return other
}

// refused runs a command that must fail, and returns all that it says.
func (h *house) refused(args ...string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	c := h.command(args...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		h.t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Process.Kill() })
	defer stop()
	if err := c.Wait(); err == nil || ctx.Err() != nil {
		h.t.Errorf("footfall %s: got %v, want it to fail\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

// securedHouse is one on a broker with TLS, passwords and ACLs, as who makes the topics
// has it. Everybody has the rights that SECURITY.md gives them; secret is the file with
// the password of all.
func securedHouse(t *testing.T, acls []acl) (b *guardedBroker, h *house, secret string) {
	t.Helper()
	b = startGuarded(t, "footfall-admin", "footfall", "storefront", "historian", "operator", "auditor", "crm")
	secret = filepath.Join(t.TempDir(), "password")
	write(t, secret, scramPassword+"\n")
	for _, a := range acls {
		b.grant(t, a.user, a)
	}
	return b, prepareHouse(t, b.sasl, chdbtest.Database(t), schemas.Live,
		"kafka.group=footfall", "kafka.topics.events=events", "kafka.topics.triggers=triggers", "kafka.topics.muted=muted", "kafka.topics.dead_letters=dead-letters",
		"kafka.partitions=2", "kafka.tls.enabled=true", "kafka.tls.ca_file="+filepath.Join(b.ca.dir, "ca.pem"),
		"kafka.sasl.mechanism=scram-sha-512", "kafka.sasl.password_file="+secret, "kafka.sasl.username=footfall-admin", "log.level=debug"), secret
}

// TestRealKafkaSecured runs everything on a broker with TLS, passwords and ACLs, each
// user with no more rights than SECURITY.md gives it, and then without each of them.
func TestRealKafkaSecured(t *testing.T) {
	acls := documented(t)
	b, h, secret := securedHouse(t, acls)
	b.withoutTopics(t, acls, h)
	engine, shop, operator := h.as("footfall"), h.as("storefront"), h.as("operator")
	engine.settled(engine.conf.runNeeds())

	running := engine.start()
	engine.ready()
	shop.run("simulate", "--lane", "live", "--ago", "1d", "--speed", "86400x", "--shoppers", "200", "--for", "2s", "--seed", "3")
	events := filepath.Join(t.TempDir(), "events.ndjson")
	write(t, events, `{"event_id":"e1","type":"view","user_id":"u1","time":"2024-05-01T12:00:00Z"}`+"\n")
	for range 2 { // the second time there is nothing left to do
		h.as("historian").run("publish", events, "--mapping", "events")
	}
	engine.applied()
	engine.archived()
	for command, want := range map[string]string{
		"status": "users by segment", "explain u1": "lifecycle: dormant", "check": "this user may look, not run the engine", "triggers show": "running",
		"forecast": "What silence alone will do", "topics check": "the topics are right",
		"triggers pause --reason test": "confirmed by the running instance", "triggers resume": "confirmed by the running instance", "deadletters ls": "dead letters in dead-letters",
		"deadletters republish " + events: "published 1 to events, 0 not",
	} {
		if command == "triggers resume" { // behind pause, which a map does not promise
			continue
		}
		if got := operator.run(strings.Fields(command)...); !strings.Contains(got, want) {
			t.Errorf("footfall %s: got\n%s\nwant %q", command, got, want)
		}
		if command == "triggers pause --reason test" {
			operator.run("triggers", "resume")
		}
	}
	if got := engine.run("check"); !strings.Contains(got, "ok  ACLs: all that the engine needs") {
		t.Errorf("check as the engine: got\n%s", got)
	}
	if n, err := b.consume(t, h.as("crm")); n == 0 || err != nil {
		t.Errorf("crm: got %d triggers and %v", n, err)
	}
	engine.applied()
	engine.archived()
	auditor := h.as("auditor", "segments.sets=lifecycle,rfm")
	auditor.run("audit")
	auditor.run("parity", "--segment-set", "lifecycle")
	engine.stop(running)
	engine.judge(true)

	t.Run("ways to log in", func(t *testing.T) { b.waysIn(t, engine, acls, secret) })
	t.Run("without an ACL", func(t *testing.T) { b.without(t, acls, h, events) })
	for _, who := range []*house{h, engine, shop, operator} {
		who.mu.Lock()
		if bytes.Contains(who.log.Bytes(), []byte(scramPassword)) {
			t.Error("the password is in a log")
		}
		who.mu.Unlock()
	}
}

// consume reads triggers as one who acts on them does.
func (b *guardedBroker) consume(t *testing.T, h *house) (n int, err error) {
	t.Helper()
	cl, err := h.conf.client(kgo.ConsumerGroup("crm"), kgo.ConsumeTopics(h.conf.Kafka.Topics.Triggers))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for n == 0 && ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return n, err
		}
		n += fetches.NumRecords()
	}
	return n, nil
}

// waysIn logs in by every mechanism, and fails to in every way.
func (b *guardedBroker) waysIn(t *testing.T, engine *house, acls []acl, secret string) {
	wrong := filepath.Join(t.TempDir(), "wrong")
	write(t, wrong, "hunter2-hunter2")
	stranger := newAuthority(t, t.TempDir())
	mine, theirs := b.ca.issue(t, "footfall"), stranger.issue(t, "footfall")
	for _, principal := range []string{"plain-footfall", "CN=footfall"} {
		for _, a := range acls {
			if a.user == "footfall" {
				b.grant(t, principal, a)
			}
		}
	}
	mtls := []string{"kafka.brokers=" + b.mtls, "kafka.sasl.mechanism=", "kafka.sasl.password_file=", "kafka.sasl.username="}
	for what, sets := range map[string][]string{
		"SCRAM-SHA-256": {"kafka.sasl.mechanism=scram-sha-256"},
		"SCRAM-SHA-512": {"kafka.sasl.mechanism=scram-sha-512"},
		"PLAIN":         {"kafka.sasl.mechanism=plain", "kafka.sasl.username=plain-footfall"},
		"mTLS":          append(slices.Clone(mtls), "kafka.tls.cert_file="+mine, "kafka.tls.key_file="+mine),
	} {
		who := engine.as("footfall", sets...)
		who.settled(who.conf.runNeeds())
		if got := who.run("check"); !strings.Contains(got, "ok  ACLs: all that the engine needs") {
			t.Errorf("%s: got\n%s", what, got)
		}
	}
	for what, c := range map[string]struct {
		sets []string
		want string
	}{
		"a wrong password":              {[]string{"kafka.sasl.password_file=" + wrong}, "SASL_AUTHENTICATION_FAILED"},
		"a wrong password by PLAIN":     {[]string{"kafka.sasl.mechanism=plain", "kafka.sasl.username=plain-footfall", "kafka.sasl.password_file=" + wrong}, "SASL_AUTHENTICATION_FAILED"},
		"an unknown user":               {[]string{"kafka.sasl.username=nobody"}, "SASL_AUTHENTICATION_FAILED"},
		"an authority that is not ours": {[]string{"kafka.tls.ca_file=" + filepath.Join(stranger.dir, "ca.pem")}, "certificate"},
		"the system's authorities":      {[]string{"kafka.tls.ca_file="}, "certificate"},
		"another name":                  {[]string{"kafka.tls.server_name=kafka.example"}, "kafka.example"},
		"no TLS":                        {[]string{"kafka.tls.enabled=false", "kafka.tls.ca_file="}, "check kafka.brokers, kafka.tls and kafka.sasl"},
		"no certificate of our own":     {mtls, "certificate"},
		"a stranger's certificate":      {append(slices.Clone(mtls), "kafka.tls.cert_file="+theirs, "kafka.tls.key_file="+theirs), "check kafka.brokers, kafka.tls and kafka.sasl"},
	} {
		got := engine.as("footfall", c.sets...).refused("status")
		if !strings.Contains(got, c.want) || strings.Contains(got, "hunter2") || strings.Contains(got, scramPassword) {
			t.Errorf("%s: got\n%s\nwant %q, and no password", what, got, c.want)
		}
	}
}

// use is a command, and what it needs.
type use struct {
	needs []kafka.Need
	args  []string
}

// uses are what a user does by SECURITY.md. Who makes topics and who acts on triggers is
// tried elsewhere.
func (h *house) uses(user, events string) (who *house, uses []use) {
	who = h.as(user)
	if user == "footfall" || user == "auditor" { // with a set that has need of the control topic
		who = h.as(user, "segments.sets=lifecycle,rfm")
	}
	c := who.conf
	return who, map[string][]use{
		"footfall":   {{c.runNeeds(), []string{"run"}}, {c.runNeeds(), []string{"check"}}},
		"storefront": {{c.publishNeeds(false), []string{"simulate", "--for", "1s"}}},
		"historian":  {{c.publishNeeds(true), []string{"publish", events, "--mapping", "events"}}},
		"auditor":    {{c.auditNeeds(), []string{"audit"}}, {c.parityNeeds(), []string{"parity"}}},
		"operator": {
			{c.lookNeeds(), []string{"status"}},
			{c.lookNeeds(), []string{"explain", "u1"}},
			{c.lookNeeds(), []string{"forecast"}},
			{c.checkNeeds(), []string{"check"}},
			{c.topicNeeds(), []string{"topics", "check"}},
			{c.switchNeeds(), []string{"triggers", "pause"}},
			{c.lookNeeds()[1:], []string{"triggers", "resume"}}, // to see it confirmed
			{reading(c.controlTopic()), []string{"triggers", "show"}},
			{reading(c.Kafka.Topics.DeadLetters), []string{"deadletters", "ls"}},
			{c.publishNeeds(false), []string{"deadletters", "republish", events}},
		},
	}[user]
}

func reading(topic string) []kafka.Need {
	return []kafka.Need{{On: kafka.OnTopic, Name: topic, Do: []kmsg.ACLOperation{canRead}}}
}

// lacking is what somebody with these rights lacks.
func lacking(acls []acl, needs []kafka.Need) (lacks []kafka.Lack) {
	for _, n := range needs {
		for _, op := range n.Do {
			l := kafka.Lack{On: n.On, Name: n.Name, Prefix: n.Prefix, Do: op}
			if !slices.ContainsFunc(acls, func(a acl) bool {
				has := a.lack
				implied := op == canDescribe && (has.Do == canRead || has.Do == canWrite)
				if implied {
					has.Do = op
				}
				return has == l
			}) {
				lacks = append(lacks, l)
			}
		}
	}
	return lacks
}

// without takes every right away in turn, but those to make topics: all that needs it
// says so by its name, and something does.
func (b *guardedBroker) without(t *testing.T, acls []acl, h *house, events string) {
	for i, a := range acls {
		if a.user == "footfall-admin" {
			continue
		}
		who, uses := h.uses(a.user, events)
		var left []acl // to this user
		for j, other := range acls {
			if j != i && other.user == a.user {
				left = append(left, other)
			}
		}
		b.revoke(t, a)
		needed := 0
		for _, u := range uses {
			lacks := lacking(left, u.needs)
			if len(lacks) == 0 {
				continue
			}
			needed++
			who.settled(u.needs, lacks...)
			got := who.refused(u.args...)
			for _, l := range lacks {
				if !strings.Contains(got, l.Error()) || !strings.Contains(got, l.Command(a.user)) {
					t.Errorf("footfall %s without %q: got\n%s", strings.Join(u.args, " "), l.Command(a.user), got)
				}
			}
		}
		if a.user == "crm" { // no command of ours: its own client says it
			needed++
			needs := []kafka.Need{{On: a.lack.On, Name: a.lack.Name, Do: []kmsg.ACLOperation{a.lack.Do}}}
			who.settled(needs, a.lack)
			if n, err := b.consume(t, who); n > 0 || !errors.Is(err, kerr.TopicAuthorizationFailed) && !errors.Is(err, kerr.GroupAuthorizationFailed) {
				t.Errorf("crm without %q: got %d triggers and %v, want an authorization error", a.lack.Command(a.user), n, err)
			}
		}
		if needed == 0 {
			t.Errorf("nothing needs what %q gives", a.lack.Command(a.user))
		}
		b.grant(t, a.user, a)
		for _, u := range uses {
			who.settled(u.needs, lacking(append(left, a), u.needs)...)
		}
	}
}

// withoutTopics makes the topics, and before that takes every right to do so away in
// turn, in their order: without Create those before one are made, and without the others
// none is.
func (b *guardedBroker) withoutTopics(t *testing.T, acls []acl, admin *house) {
	cl, err := admin.conf.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	mayCreate := func(topic string) bool {
		made, err := kadm.NewClient(cl).ValidateCreateTopics(t.Context(), 1, 1, nil, topic)
		if err != nil {
			t.Fatal(err)
		}
		return !errors.Is(made[topic].Err, kerr.TopicAuthorizationFailed)
	}
	for _, a := range acls {
		if a.user != "footfall-admin" {
			continue
		}
		settled := func(want bool) {
			if a.lack.Do == kmsg.ACLOperationCreate {
				admin.until(fmt.Sprintf("Create on %s: %t", a.lack.Name, want), func() bool { return mayCreate(a.lack.Name) == want })
			} else if want {
				admin.settled(admin.conf.topicNeeds())
			} else {
				admin.settled(admin.conf.topicNeeds(), a.lack)
			}
		}
		settled(true)
		b.revoke(t, a)
		settled(false)
		if got := admin.refused("topics", "create"); !strings.Contains(got, a.lack.Error()) || !strings.Contains(got, a.lack.Command(a.user)) {
			t.Errorf("topics create without %q: got\n%s", a.lack.Command(a.user), got)
		}
		b.grant(t, a.user, a)
		settled(true)
	}
	admin.run("topics", "create")
}
