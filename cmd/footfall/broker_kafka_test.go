package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// guardedBroker is a real Kafka that lets nobody in without a password or a certificate,
// and lets nobody do anything without an ACL.
type guardedBroker struct {
	sasl, mtls string // host:port of SASL_SSL, and of SSL with client certificates
	ca         authority
	client     *kgo.Client // of who may do everything, through a listener of its own
}

const scramPassword = "scram secret/'&%"

// startGuarded starts a broker, and users for it: NAME by SCRAM, and plain-NAME by
// PLAIN, both with scramPassword.
func startGuarded(t *testing.T, users ...string) *guardedBroker {
	t.Helper()
	libs := os.Getenv("FOOTFALL_TEST_KAFKA_LIBS")
	if libs == "" {
		t.Skip("needs Kafka's jars: make test-kafka sets FOOTFALL_TEST_KAFKA_LIBS")
	}
	dir := t.TempDir()
	ca := newAuthority(t, dir)
	ports := freePorts(t, 4)
	b := &guardedBroker{sasl: ports[0], mtls: ports[1], ca: ca}
	plain := ""
	for _, u := range users {
		plain += fmt.Sprintf(` user_plain-%s="%s"`, u, scramPassword)
	}
	properties := strings.NewReplacer("SASL_PORT", ports[0], "MTLS_PORT", ports[1], "INSIDE_PORT", ports[2], "CONTROLLER_PORT", ports[3],
		"DIR", dir, "PLAIN_USERS", plain, "SERVER", ca.issue(t, "127.0.0.1")).Replace(`
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@CONTROLLER_PORT
listeners=SASL://SASL_PORT,MTLS://MTLS_PORT,INSIDE://INSIDE_PORT,CONTROLLER://CONTROLLER_PORT
advertised.listeners=SASL://SASL_PORT,MTLS://MTLS_PORT,INSIDE://INSIDE_PORT
listener.security.protocol.map=SASL:SASL_SSL,MTLS:SSL,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=INSIDE
log.dirs=DIR/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
ssl.keystore.type=PEM
ssl.keystore.location=SERVER
ssl.truststore.type=PEM
ssl.truststore.location=DIR/ca.pem
listener.name.mtls.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required PLAIN_USERS;
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:ANONYMOUS
`)
	write(t, filepath.Join(dir, "server.properties"), properties)
	write(t, filepath.Join(dir, "log4j2.properties"), "rootLogger.level = WARN\nrootLogger.appenderRef.out.ref = out\nappender.out.type = Console\nappender.out.name = out\nappender.out.layout.type = PatternLayout\nappender.out.layout.pattern = %p %c %m%n\n")
	java := func(args ...string) *exec.Cmd {
		return exec.Command("java", append([]string{"-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dlog4j2.configurationFile=" + filepath.Join(dir, "log4j2.properties"), "-cp", libs + "/*"}, args...)...) //nolint:gosec // a broker of the test
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	format := java("kafka.tools.StorageTool", "format", "-t", "K"+base64.RawURLEncoding.EncodeToString(id)[1:], "-c", filepath.Join(dir, "server.properties"))
	if out, err := format.CombinedOutput(); err != nil {
		t.Fatalf("format: %v\n%s", err, out)
	}
	broker := java("kafka.Kafka", filepath.Join(dir, "server.properties"))
	var log bytes.Buffer
	broker.Stdout, broker.Stderr = &log, &log
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = broker.Process.Kill()
		_ = broker.Wait()
		if t.Failed() {
			t.Logf("the broker's log:\n%s", log.Bytes()[max(0, log.Len()-8000):])
		}
	})
	b.connect(t, ports[2], users)
	return b
}

// connect waits for the broker, and makes the users.
func (b *guardedBroker) connect(t *testing.T, inside string, users []string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(inside))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	b.client = cl
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for err = cl.Ping(ctx); err != nil; err = cl.Ping(ctx) {
		if ctx.Err() != nil {
			t.Fatalf("the broker does not answer: %v", err)
		}
		backoff(ctx, 3)
	}
	for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		var scrams []kadm.UpsertSCRAM
		for _, u := range users {
			scrams = append(scrams, kadm.UpsertSCRAM{User: u, Mechanism: m, Iterations: 4096, Password: scramPassword})
		}
		made, err := kadm.NewClient(cl).AlterUserSCRAMs(ctx, nil, scrams)
		if err == nil {
			err = made.Error()
		}
		if err != nil {
			t.Fatalf("make users: %v", err)
		}
	}
}

func freePorts(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// authority signs certificates, all in files of one folder.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{dir: dir, key: key}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return a
}

// issue makes a certificate for a name or an address, and returns the file that has it
// and its key.
func (a authority) issue(t *testing.T, name string) (path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		c.IPAddresses = []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(a.dir, name+".pem")
	write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))+string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return path
}
