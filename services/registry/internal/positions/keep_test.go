package positions

import (
	"errors"
	"maps"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWhereAGroupStandsIsKnownOnlyWhereKafkaSaysAllOfIt(t *testing.T) {
	there := kadm.TopicDetail{ID: topicID, Partitions: kadm.PartitionDetails{0: {}}}
	gone := kadm.TopicDetail{Err: kerr.UnknownTopicOrPartition}
	three := kadm.OffsetResponses{"orders": {0: {Offset: kadm.Offset{At: 3, Metadata: "m"}}, 1: {Offset: kadm.Offset{At: -1}}}}
	for name, c := range map[string]struct {
		r      kadm.FetchOffsetsResponse
		t      kadm.TopicDetail
		known  bool
		denied bool
		n      int
	}{
		"it stands at 3":             {kadm.FetchOffsetsResponse{Fetched: three}, there, true, false, 1},
		"it has none":                {kadm.FetchOffsetsResponse{}, there, true, false, 0},
		"there is no group":          {kadm.FetchOffsetsResponse{Err: kerr.GroupIDNotFound}, there, true, false, 0},
		"the topic is gone":          {kadm.FetchOffsetsResponse{Fetched: three}, gone, true, false, 1},
		"nothing is said of it":      {kadm.FetchOffsetsResponse{Err: errNotAsked}, there, false, false, 0},
		"the coordinator loads":      {kadm.FetchOffsetsResponse{Err: kerr.CoordinatorLoadInProgress}, there, false, false, 0},
		"the topic's leader is away": {kadm.FetchOffsetsResponse{Fetched: three}, kadm.TopicDetail{Err: kerr.LeaderNotAvailable}, false, false, 1},
		"the group may not be seen":  {kadm.FetchOffsetsResponse{Err: kerr.GroupAuthorizationFailed}, there, false, true, 0},
		"the topic may not be seen":  {kadm.FetchOffsetsResponse{Fetched: three}, kadm.TopicDetail{Err: kerr.TopicAuthorizationFailed}, false, true, 1},
	} {
		s, err := group{name: "g", topic: "orders"}.stands(c.r, c.t)
		if s.known != c.known || (err == nil) != c.known || security.Denied(err) != c.denied || len(s.at) != c.n {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func TestARegistryThatStoodStillKeepsNoOlderPositions(t *testing.T) {
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	s := store{db}
	when := func(topic string, next int64) asOf { return asOf{topic, map[int32]int64{0: next, 1: 10}} }
	keep := func(last, to asOf, next int64) error {
		return s.save(t.Context(), last, map[string]*copied{"g": {topic: "orders", topicID: "A", at: map[int32]position{0: {Next: next}}}}, nil, &to)
	}
	stands := func(want int64, as asOf) {
		t.Helper()
		all, err := s.load(t.Context())
		if err != nil || all["g"] == nil || all["g"].at[0].Next != want {
			t.Errorf("%v, %v: want %d", all["g"], err, want)
		}
		if got, err := s.loadAsOf(t.Context()); err != nil || got.topicID != as.topicID || !maps.Equal(got.ends, as.ends) {
			t.Errorf("%v, %v: want %v", got, err, as)
		}
	}
	if err := errors.Join(keep(asOf{}, when("O", 10), 5), keep(when("O", 10), when("O", 20), 7)); err != nil {
		t.Fatal(err)
	}
	if err := keep(when("O", 10), when("O", 15), 6); !errors.Is(err, errOvertaken) {
		t.Errorf("an older look is kept: %v", err)
	}
	stands(7, when("O", 20))
	smaller := asOf{"made again", map[int32]int64{0: 3}}
	if err := keep(when("O", 20), smaller, 8); err != nil {
		t.Error(err)
	}
	stands(8, smaller)
}

// Which dead letters are open is what a group's commit says; Kafka forgets it a week after somebody redrove any.
func TestWhatIsSettledOfDeadLettersIsKept(t *testing.T) {
	k := &Keeper{}
	a := &spec.Agent{Topic: "orders", Name: "bill"}
	topics := map[string]string{}
	for _, g := range k.groups([]*spec.Agent{a}, true) {
		if g.kind == ofLetters {
			topics[g.name] = g.topic
		}
	}
	if want := map[string]string{"reeve.dlq/orders/bill": "reeve.dlq.orders.bill", "reeve.dlq/webhooks": "reeve.dlq.webhooks"}; !maps.Equal(topics, want) {
		t.Errorf("%v, want %v", topics, want)
	}
}
