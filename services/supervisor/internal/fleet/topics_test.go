package fleet

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/services/supervisor/internal/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mayNotCreate is a cluster on which nobody may create topics, after these were.
func mayNotCreate(t *testing.T, topics ...string) *kgo.Client {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		for _, asked := range req.(*kmsg.CreateTopicsRequest).Topics {
			rt := kmsg.NewCreateTopicsResponseTopic()
			rt.Topic, rt.ErrorCode = asked.Topic, kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics("reeve.status"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// The worker may leave its group and come back while the alert stands.
func TestTheAlertOfAMissingTopicIsTakenBackAlsoAfterAnotherStart(t *testing.T) {
	a := &spec.Agent{Topic: "orders", Name: "bill", Partitions: 1, Config: spec.NewConfig(spec.Python)}
	for name, then := range map[string]func(*Keeper){
		"no dead letters are kept": func(k *Keeper) {
			b := *a
			b.Config.DLQEnabled = false
			k.spec = &b
			k.checkDLQ(t.Context(), time.Now())
		},
		"the agent is paused": func(k *Keeper) { k.endTopicAlert("paused") },
	} {
		t.Run(name, func(t *testing.T) {
			cl := mayNotCreate(t, "reeve.status")
			env := &Environment{Node: "n1", Service: config.Supervisor, Client: cl, Logger: slog.New(slog.DiscardHandler)}
			env.Kafka.Replication = -1
			env.Reporter = report.New(cl, env.Names, env.Service, env.Node, env.Logger)
			k := newKeeper(env, a, nil)
			k.spec = a
			k.checkDLQ(t.Context(), time.Now())
			k.topics.begin()
			then(k)
			var resolved []bool
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for len(resolved) < 2 && ctx.Err() == nil {
				for _, r := range cl.PollFetches(ctx).Records() {
					var alert status.Alert
					if err := json.Unmarshal(r.Value, &alert); err != nil || alert.Kind != "topic_missing" {
						t.Fatalf("%s, %v", r.Value, err)
					}
					resolved = append(resolved, alert.Resolved)
				}
			}
			if !slices.Equal(resolved, []bool{false, true}) {
				t.Errorf("%v", resolved)
			}
		})
	}
}
