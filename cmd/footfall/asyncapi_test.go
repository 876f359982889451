package main

import (
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// asyncAPI is what is compared of schemas/asyncapi.yaml.
type asyncAPI struct {
	Channels map[string]struct {
		Address  string
		Bindings struct {
			Kafka struct {
				Topic         string
				Partitions    int
				Configuration struct {
					Cleanup []string `yaml:"cleanup.policy"`
					Size    int      `yaml:"max.message.bytes"`
				} `yaml:"topicConfiguration"`
			}
		}
	}
	Components struct {
		Messages map[string]struct {
			Payload  map[string]any
			Bindings struct {
				Kafka struct {
					Key struct{ Const, Pattern string }
				}
			}
		}
	}
}

func readAsyncAPI(t *testing.T) (doc asyncAPI) {
	t.Helper()
	text, err := schemas.Contracts.ReadFile("asyncapi.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// topicMade is what a broker knows of a topic.
type topicMade struct {
	Cleanup string
	Size    int // 0: the broker's default
	One     bool
}

// The AsyncAPI document has the topics as `topics create` makes them by default.
func TestAsyncAPIHasTheTopics(t *testing.T) {
	c := defaultConfig()
	c.Kafka.Brokers, c.Kafka.Replication = []string{localKafka(t)}, 1
	ctx := t.Context()
	connect := func() *kgo.Client {
		cl, err := c.connect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return cl
	}
	if problems, err := createTopics(ctx, c, connect(), t.Output()); err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	cl := connect() // the other one remembers for a while that they do not exist
	partitions, err := existing(ctx, c, cl)
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]topicMade{}
	for name, set := range topicSettings(ctx, t, kadm.NewClient(cl), c.topicNames()) {
		size, _ := strconv.Atoi(set["max.message.bytes"])
		made[name] = topicMade{set["cleanup.policy"], size, partitions[name] == 1}
	}
	told := map[string]topicMade{}
	for id, channel := range readAsyncAPI(t).Channels {
		k := channel.Bindings.Kafka
		if k.Topic != channel.Address || len(k.Configuration.Cleanup) != 1 {
			t.Fatalf("channel %s: address %s, topic %s, cleanup %v", id, channel.Address, k.Topic, k.Configuration.Cleanup)
		}
		told[k.Topic] = topicMade{k.Configuration.Cleanup[0], k.Configuration.Size, k.Partitions == 1}
	}
	if diff := cmp.Diff(made, told); diff != "" {
		t.Errorf("topics (-made +told)\n%s", diff)
	}
}

// topicSettings gives what was set for each topic, without the broker's defaults.
func topicSettings(ctx context.Context, t *testing.T, adm *kadm.Client, names []string) map[string]map[string]string {
	t.Helper()
	configs, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]string{}
	for _, topic := range configs {
		set := map[string]string{}
		for _, s := range topic.Configs {
			if s.Source.String() == "DYNAMIC_TOPIC_CONFIG" {
				set[s.Key] = s.MaybeValue()
			}
		}
		all[topic.Name] = set
	}
	return all
}

// What is written to the control topic is as the AsyncAPI document says.
func TestAsyncAPIHasTheControlRecords(t *testing.T) {
	rules, err := segment.Shipped(segment.Options{Exponent: 2}, "lifecycle", "rfm")
	if err != nil {
		t.Fatal(err)
	}
	epochs, of := segment.NewEpochs(rules, 1), make([]segment.Distribution, rules.Quantiles())
	for i := range of {
		of[i].Add(segment.Valued{Value: 7, Users: 1})
	}
	count, err := epochs.Count(0, segment.Count{Number: 20000, At: 20000 * schemas.Day, Of: of})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := epochs.Read(count); err != nil {
		t.Fatal(err)
	}
	epoch, ok := epochs.Cut()
	if !ok {
		t.Fatal("no epoch is cut")
	}
	thrown, err := json.Marshal(control{Paused: true, At: 1, By: "me@here", Reason: "a trial"})
	if err != nil {
		t.Fatal(err)
	}
	messages := readAsyncAPI(t).Components.Messages
	for name, r := range map[string]segment.LogRecord{
		"switch": {Key: []byte(controlKey), Value: thrown}, "count": count, "epoch": epoch,
	} {
		message := messages[name]
		if key := message.Bindings.Kafka.Key; key.Const != string(r.Key) && (key.Pattern == "" || !regexp.MustCompile(key.Pattern).Match(r.Key)) {
			t.Errorf("%s: key %s is not %+v", name, r.Key, key)
		}
		if name == "count" {
			continue // its value is no JSON
		}
		var value map[string]any
		if err := json.Unmarshal(r.Value, &value); err != nil {
			t.Fatal(err)
		}
		if err := compilePayload(t, message.Payload).Validate(value); err != nil {
			t.Errorf("%s: %v: %s", name, err, r.Value)
		}
		properties, _ := message.Payload["properties"].(map[string]any)
		if diff := cmp.Diff(slices.Sorted(maps.Keys(value)), slices.Sorted(maps.Keys(properties))); diff != "" {
			t.Errorf("%s: fields (-written +told)\n%s", name, diff)
		}
	}
}

func compilePayload(t *testing.T, payload map[string]any) *jsonschema.Schema {
	t.Helper()
	// By JSON: numbers of YAML are of other types than the compiler takes.
	text, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("payload.json", doc); err != nil {
		t.Fatal(err)
	}
	return c.MustCompile("payload.json")
}
