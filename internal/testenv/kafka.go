package testenv

import (
	"context"
	"crypto/sha256"
	_ "embed" // the pom
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Variables that name or choose the servers.
const (
	EnvKafka        = "REEVE_TEST_KAFKA"         // apache or kfake
	EnvKafkaBrokers = "REEVE_TEST_KAFKA_BROKERS" // an external Kafka
	EnvKafkaAbout   = "REEVE_TEST_KAFKA_ABOUT"   // what withenv's Kafka is
	EnvKafkaPID     = "REEVE_TEST_KAFKA_PID"     // of withenv's Kafka
	EnvDatabaseURL  = "REEVE_TEST_DATABASE_URL"  // an external Postgres
)

// startLimit is how long a server may take from its start to its first answer, on a busy machine.
const startLimit = 90 * time.Second

//go:embed pom.xml
var pom []byte

// How Java runs a broker. That of one test lives for a minute beside all the others: what compiling its methods to the end
// costs doesn't come back. One that is measured, or serves a whole run, is compiled as a server is.
const (
	light  = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
	server = "-XX:TieredStopAtLevel=4 -XX:+UseG1GC"
)

// StartKafka starts a Kafka by the first provider that can.
func StartKafka(ctx context.Context, say Say) (*Server, error) { return startKafka(ctx, say, light) }

// StartServerKafka is StartKafka for whoever measures, or has the broker work for minutes.
func StartServerKafka(ctx context.Context, say Say) (*Server, error) {
	return startKafka(ctx, say, server)
}

func startKafka(ctx context.Context, say Say, jvm string) (*Server, error) {
	only := os.Getenv(EnvKafka)
	if os.Getenv(EnvKafkaBrokers) != "" {
		only = "external"
	}
	return first(ctx, say, "Kafka", only, []provider{externalKafka(), apacheKafka(jvm), fakeKafka()})
}

// StartApacheKafka starts an Apache Kafka that no other test uses, for tests that stop it or need settings of their own,
// each as name=value.
func StartApacheKafka(ctx context.Context, say Say, settings ...string) (*Server, error) {
	return first(ctx, say, "Kafka", "apache", []provider{apacheKafka(light, settings...)})
}

// StartKfake starts a kfake that no other test uses.
func StartKfake(ctx context.Context) (*Server, error) {
	return first(ctx, nil, "Kafka", "kfake", []provider{fakeKafka()})
}

func externalKafka() provider {
	return provider{
		name: "external",
		missing: func() string {
			if os.Getenv(EnvKafkaBrokers) == "" {
				return EnvKafkaBrokers + " isn't set"
			}
			return ""
		},
		start: func(context.Context, Say) (*Server, error) {
			s := &Server{Address: os.Getenv(EnvKafkaBrokers), About: os.Getenv(EnvKafkaAbout)}
			s.PID, _ = strconv.Atoi(os.Getenv(EnvKafkaPID))
			if s.About == "" {
				s.About = "the Kafka at " + s.Address
			}
			return s, nil
		},
	}
}

func fakeKafka() provider {
	return provider{
		name:    "kfake",
		missing: func() string { return "" },
		start: func(context.Context, Say) (*Server, error) {
			c, err := kfake.NewCluster(kfake.NumBrokers(1))
			if err != nil {
				return nil, err
			}
			return &Server{
				Address: strings.Join(c.ListenAddrs(), ","),
				About:   "kfake (in this process)",
				stop:    func() error { c.Close(); return nil },
			}, nil
		},
	}
}

func apacheKafka(jvm string, settings ...string) provider {
	return provider{
		name: "apache",
		missing: func() string {
			for _, name := range []string{"java", "mvn"} {
				if _, err := exec.LookPath(name); err != nil {
					return name + " isn't installed"
				}
			}
			return ""
		},
		start: func(ctx context.Context, say Say) (*Server, error) { return startApache(ctx, say, jvm, settings) },
	}
}

func startApache(ctx context.Context, say Say, jvm string, more []string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	jars, err := kafkaJars(ctx, say)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "reeve-test-kafka-")
	if err != nil {
		return nil, err
	}
	s, err := runApache(ctx, dir, jars, jvm, more)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// settings of a broker that serves a test run: one node, small, quick to rebalance and to end dead transactions.
const settings = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[3]s/data
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
num.network.threads=2
num.io.threads=4
log.segment.delete.delay.ms=1000
log.cleaner.dedupe.buffer.size=4194304
`

// commonSettings are the settings without the addresses: those of every broker.
func commonSettings(dir string) string {
	const data = "log.dirs=%[3]s/data\n"
	_, rest, _ := strings.Cut(settings, data)
	return "log.dirs=" + dir + "/data\n" + rest
}

func runApache(ctx context.Context, dir, jars, jvm string, more []string) (*Server, error) {
	addrs, err := FreeAddrs(2)
	if err != nil {
		return nil, err
	}
	return runKafka(ctx, dir, jars, jvm, addrs[0], fmt.Sprintf(settings, addrs[0], addrs[1], dir)+strings.Join(more, "\n")+"\n")
}

func java(ctx context.Context, jars, jvm, class string, args ...string) *exec.Cmd {
	flags := []string{"-cp", filepath.Join(jars, "*"), "-Xms128m", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"}
	return exec.CommandContext(ctx, "java", slices.Concat(flags, strings.Fields(jvm), []string{class}, args)...)
}

func pingKafka(ctx context.Context, addr string, more ...kgo.Opt) error {
	cl, err := kgo.NewClient(append(more, kgo.SeedBrokers(addr), kgo.RequestRetries(0))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return cl.Ping(ctx)
}

func kafkaVersion(jars string) string {
	found, _ := filepath.Glob(filepath.Join(jars, "kafka-clients-*.jar"))
	if len(found) == 0 {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), "kafka-clients-"), ".jar")
}

// KafkaTool is a command of Apache Kafka's own, by its class, such as
// org.apache.kafka.tools.consumer.group.ConsumerGroupCommand; an error says that java or mvn is missing.
func KafkaTool(ctx context.Context, say Say, class string, args ...string) (*exec.Cmd, error) {
	if m := apacheKafka(light).missing(); m != "" {
		return nil, errors.New(m)
	}
	jars, err := kafkaJars(ctx, say)
	if err != nil {
		return nil, err
	}
	return java(ctx, jars, light, class, args...), nil
}

// kafkaJars is the directory of Kafka's jars, fetched by Maven the first time. It is named for what the pom asks for, so
// that another version gets another one.
func kafkaJars(ctx context.Context, say Say) (string, error) {
	cache := cacheDir()
	sum := sha256.Sum256(pom)
	jars := filepath.Join(cache, "kafka-"+hex.EncodeToString(sum[:6]))
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(jars); err == nil {
		return jars, nil
	}
	say("fetching Apache Kafka by Maven (once)")
	dir, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "pom.xml"), pom, 0o644); err != nil {
		return "", err
	}
	mvn := exec.CommandContext(ctx, "mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory="+filepath.Join(dir, "jars"))
	mvn.Dir = dir
	if out, err := mvn.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch Apache Kafka by Maven: %w\n%s", err, out)
	}
	return jars, os.Rename(filepath.Join(dir, "jars"), jars)
}

// cacheDir is where downloads are kept from run to run.
func cacheDir() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir() // a machine without a home
	}
	return filepath.Join(base, "reeve-test")
}

// lock waits until no other process of this user holds the file's lock.
func lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
