package containers

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	tcnetwork "github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

const (
	kafkaImage    = "apache/kafka:4.3.1"
	postgresImage = "postgres:18-alpine"
	startLimit    = 2 * time.Minute
	insideKafka   = "kafka:19092"
)

// A Stack is a Kafka and a Postgres in containers, for any number of Systems.
type Stack struct {
	net      *testcontainers.DockerNetwork
	client   *testcontainers.DockerClient
	brokers  []string // for this machine
	postgres *testcontainers.DockerContainer
}

// Need fails the test where no container engine answers, and says what to do.
func Need(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{"version"}, {"compose", "version"}} {
		if out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput(); err != nil {
			t.Fatalf("`docker %s`: %v\n%s\nthis test needs Docker with Compose: install and start it; what needs none is in `make test`", strings.Join(args, " "), err, out)
		}
	}
}

// Start starts a Stack that ends with the test.
func Start(t *testing.T) *Stack {
	t.Helper()
	Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	s := &Stack{}
	var err error
	if s.client, err = testcontainers.NewDockerClientWithOpts(ctx); err != nil {
		t.Fatalf("reach the container engine: %v", err)
	}
	t.Cleanup(func() { _ = s.client.Close() })
	if s.net, err = tcnetwork.New(ctx); err != nil {
		t.Fatalf("make a network: %v", err)
	}
	testcontainers.CleanupNetwork(t, s.net)
	s.startKafka(ctx, t)
	s.startPostgres(ctx, t)
	return s
}

// startKafka starts a Kafka with two listeners: one for the network, one for this machine, whose port has to be known
// beforehand, since the broker tells it to its clients.
func (s *Stack) startKafka(ctx context.Context, t *testing.T) {
	t.Helper()
	addrs, err := testenv.FreeAddrs(1)
	if err != nil {
		t.Fatal(err)
	}
	s.brokers = addrs
	_, port, _ := net.SplitHostPort(addrs[0])
	c, err := testcontainers.Run(ctx, kafkaImage,
		tcnetwork.WithNetwork([]string{"kafka"}, s.net),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
			h.PortBindings = network.PortMap{network.MustParsePort("9092/tcp"): {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: port}}}
		}),
		testcontainers.WithExposedPorts("9092/tcp"),
		testcontainers.WithEnv(map[string]string{
			"KAFKA_NODE_ID": "1", "KAFKA_PROCESS_ROLES": "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093", "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
			"KAFKA_LISTENERS":                                                   "CONTAINERS://:19092,MACHINE://:9092,CONTROLLER://localhost:9093",
			"KAFKA_ADVERTISED_LISTENERS":                                        "CONTAINERS://" + insideKafka + ",MACHINE://" + addrs[0],
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":                              "CONTAINERS:PLAINTEXT,MACHINE:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"KAFKA_INTER_BROKER_LISTENER_NAME":                                  "CONTAINERS",
			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                                   "false",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":                            "1",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR":                    "1",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":                               "1",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":                            "0",
			"KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS": "1000",
			"KAFKA_HEAP_OPTS":                                                   "-Xms256m -Xmx512m",
		}),
		testcontainers.WithWaitStrategyAndDeadline(startLimit, wait.ForLog("Kafka Server started")))
	testcontainers.CleanupContainer(t, c)
	if err != nil {
		t.Fatalf("start Kafka: %v", err)
	}
}

func (s *Stack) startPostgres(ctx context.Context, t *testing.T) {
	t.Helper()
	c, err := testcontainers.Run(ctx, postgresImage,
		tcnetwork.WithNetwork([]string{"postgres"}, s.net),
		testcontainers.WithEnv(map[string]string{"POSTGRES_USER": "reeve", "POSTGRES_PASSWORD": "reeve"}),
		// The first is of the server that sets the database up.
		testcontainers.WithWaitStrategyAndDeadline(startLimit, wait.ForLog("database system is ready to accept connections").WithOccurrence(2)))
	testcontainers.CleanupContainer(t, c)
	if err != nil {
		t.Fatalf("start Postgres: %v", err)
	}
	s.postgres = c
}

// System is an installation of its own on the Stack; its services run in containers. It ends with the test.
func (s *Stack) System(t *testing.T) *harness.System {
	t.Helper()
	name := testenv.Unique()
	code, out, err := s.postgres.Exec(t.Context(), []string{"psql", "-U", "reeve", "-c", "CREATE DATABASE " + name})
	if err != nil || code != 0 {
		t.Fatalf("make a database: exit code %d, %v %s", code, err, text(out))
	}
	host := &host{stack: s}
	sys, err := harness.New(harness.Config{
		Brokers: s.brokers, Prefix: name, Database: "postgres://reeve:reeve@postgres:5432/" + name + "?sslmode=disable",
		Dir: t.TempDir(), Env: []string{"REEVE_LOG_LEVEL=debug"}, Key: "key-" + strconv.FormatInt(time.Now().UnixNano(), 36), Host: host,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sys.Close(); err != nil {
			t.Error(err)
		}
		host.remove(t)
	})
	return sys
}
