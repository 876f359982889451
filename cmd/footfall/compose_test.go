package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"

	"footfall/sinks/clickhouse/chdb"
)

// loadCompose reads docker-compose.yml as Docker does.
func loadCompose(t *testing.T) *types.Project {
	t.Helper()
	path, err := filepath.Abs("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  filepath.Dir(path),
		ConfigFiles: []types.ConfigFile{{Filename: path}},
		Environment: types.Mapping{},
	}, func(o *loader.Options) { o.SetProjectName("footfall", true) })
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// What runs our image has a configuration that we accept, which differs from the
// defaults in addresses only, and a command line that we understand.
func TestComposeConfigures(t *testing.T) {
	project := loadCompose(t)
	var ours []string
	for name, service := range project.Services {
		if service.Image != "footfall" {
			continue
		}
		ours = append(ours, name)
		var env []string
		for key, value := range service.Environment {
			if value != nil {
				env = append(env, key+"="+*value)
			}
		}
		c, err := load(sources{env: env})
		if err != nil {
			t.Errorf("service %s: %v", name, err)
			continue
		}
		defaults := defaultConfig().options()
		for i, o := range c.options() {
			place := slices.Contains([]string{
				"kafka.brokers", "kafka.instance", "snapshots.bucket", "clickhouse.dsn", "clickhouse.username", "clickhouse.password",
				"http.listen", "http.advertise", "http.token", "log.format",
			}, o.key)
			if got, want := text(o.target), text(defaults[i].target); got != want && !place {
				t.Errorf("service %s: %s is %s, and %s by default", name, o.key, got, want)
			}
		}
		began := false
		cmd, rest, err := newRoot(&began).Find(service.Command)
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err != nil || cmd.Name() == "footfall" {
			t.Errorf("service %s: command %q: %v", name, service.Command, err)
		}
	}
	slices.Sort(ours)
	if diff := cmp.Diff([]string{"footfall", "storefront", "topics"}, ours); diff != "" {
		t.Errorf("services of our image (-want +got)\n%s", diff)
	}
}

// Ports are published on loopback only, images are pinned, and what others wait for has
// a healthcheck.
func TestComposeIsSafe(t *testing.T) {
	project := loadCompose(t)
	for name, service := range project.Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("service %s: port %s is published on %q, want 127.0.0.1", name, port.Published, port.HostIP)
			}
		}
		if image := service.Image; image != "footfall" && (!strings.Contains(image, ":") || strings.HasSuffix(image, ":latest")) {
			t.Errorf("service %s: image %s is not pinned", name, image)
		}
		for other, dependency := range service.DependsOn {
			if dependency.Condition == types.ServiceConditionHealthy && project.Services[other].HealthCheck == nil {
				t.Errorf("service %s waits for %s to be healthy, which has no healthcheck", name, other)
			}
		}
	}
	want := []string{"clickhouse", "footfall", "kafka", "storefront", "topics"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(project.Services))); diff != "" {
		t.Errorf("services (-want +got)\n%s", diff)
	}
}

// Kafka and ClickHouse are of the versions that the tests run on, and the broker has the
// settings of theirs, but for those that only spare tests a wait.
func TestComposeRunsWhatTestsRun(t *testing.T) {
	services := loadCompose(t).Services
	release := regexp.MustCompile(`^\d+\.\d+`).FindString(chdb.Version) // a server's patches are its own
	if got, want := services["clickhouse"].Image, "clickhouse/clickhouse-server:"+release; got != want {
		t.Errorf("ClickHouse: got %s, want %s", got, want)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^KAFKA_VERSION \?= (\S+)$`).FindSubmatch(makefile)
	props := regexp.MustCompile(`KAFKA_PROPS="([^"]+)"`).FindSubmatch(makefile)
	if version == nil || props == nil {
		t.Fatal("the Makefile has no KAFKA_VERSION or KAFKA_PROPS any more")
	}
	kafka := services["kafka"]
	if got, want := kafka.Image, "apache/kafka:"+string(version[1]); got != want {
		t.Errorf("Kafka: got %s, want %s", got, want)
	}
	waits := regexp.MustCompile(`^(transaction\.abort\.timed\.out|group\.consumer\.(min\.)?(session|heartbeat))\.`)
	text := regexp.MustCompile(`\$\(or [^,]+,([^)]+)\)`).ReplaceAllString(string(props[1]), "$1") // what it is unless given
	for prop := range strings.FieldsSeq(strings.ReplaceAll(text, "\\\n", " ")) {
		name, want, _ := strings.Cut(prop, "=")
		got := kafka.Environment["KAFKA_"+strings.ToUpper(strings.ReplaceAll(name, ".", "_"))]
		switch {
		case waits.MatchString(name) && got != nil:
			t.Errorf("%s=%s only spares tests a wait", name, *got)
		case !waits.MatchString(name) && (got == nil || *got != want):
			t.Errorf("%s: the tests have %s", name, want)
		}
	}
}
