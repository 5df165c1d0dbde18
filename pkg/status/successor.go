package status

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	// Heartbeats come every 2 s: one of a process that has just started is found within successorWait.
	successorWait = 3 * time.Second
	// successorPast is how far back it is looked for.
	successorPast = 10 * time.Second
)

// successor names the process that took over a node's name from one that started at a time: "host, pid n", as its
// heartbeat says. Kafka itself can't tell: a group shows a static member as it first joined.
func successor(ctx context.Context, opts []kgo.Opt, names topics.Names, service, node string, startedAt time.Time) string {
	const unknown = "another process, which hasn't reported yet"
	ctx, cancel := context.WithTimeout(ctx, successorWait)
	defer cancel()
	cl, err := kgo.NewClient(append(append([]kgo.Opt{}, opts...),
		kgo.ConsumeTopics(names.Status()), kgo.DisableFetchSessions(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(time.Now().Add(-successorPast).UnixMilli())))...)
	if err != nil {
		return unknown
	}
	defer cl.Close()
	for ctx.Err() == nil {
		for _, r := range cl.PollFetches(ctx).Records() {
			var n Node
			if json.Unmarshal(r.Value, &n) == nil && n.Event == EventNode && n.Service == service && n.Node == node &&
				n.StartedAt > float64(startedAt.UnixMilli())/1000 {
				return fmt.Sprintf("the process %d on host %s", n.PID, n.Host)
			}
		}
	}
	return unknown
}
