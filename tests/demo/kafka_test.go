package main

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPublisherSendsEveryDeliveryOnce(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	brokers := strings.Join(cluster.ListenAddrs(), ",")
	as := agents(true)
	ds := plan(committedDeliveries(t), as, 2)
	if n, err := createTopics(t.Context(), brokers, as); err != nil || n != 0 {
		t.Fatalf("new topics: %d records, %v", n, err)
	}
	pub, err := newPublisher(brokers)
	if err != nil {
		t.Fatal(err)
	}
	defer pub.close()
	if err := pub.publish(t.Context(), ds, 1_000_000); err != nil {
		t.Fatal(err)
	}
	ids, origins := map[string]bool{}, map[string]bool{}
	for _, p := range pub.published() {
		ids[p.ID], origins[p.origin] = true, true
	}
	if n, err := createTopics(t.Context(), brokers, as); err != nil || int(n) != len(ds) {
		t.Errorf("topics that are there already: %d records, %v; want %d", n, err, len(ds))
	}
	if len(ids) != len(ds) || len(origins) != len(ds) {
		t.Errorf("%d deliveries at %d places, want %d", len(ids), len(origins), len(ds))
	}
}

func TestHasTopicTellsOfAnUnreachableKafka(t *testing.T) {
	_, err := hasTopic(t.Context(), "127.0.0.1:1", "x")
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "REEVE_KAFKA_BROKERS") {
		t.Errorf("error %v, want one with the address and what to look at", err)
	}
}

func TestDeleteTopicsTakesOnlyThosePrefixed(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "demo-1.control", "demo-1.tasks.a", "demo-10.control", "demo"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	brokers := strings.Join(cluster.ListenAddrs(), ",")
	if err := deleteTopics(brokers, "demo-1."); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"demo-1.control": false, "demo-1.tasks.a": false, "demo-10.control": true, "demo": true} {
		if got, err := hasTopic(t.Context(), brokers, name); err != nil || got != want {
			t.Errorf("topic %s is there: %v, %v; want %v", name, got, err, want)
		}
	}
}
