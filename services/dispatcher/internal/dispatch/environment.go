package dispatch

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/dispatcher/internal/deliver"
)

// Environment is what all parts of a dispatcher share. All fields are required, but CreateTopics.
type Environment struct {
	Kafka         config.Kafka
	Tiers         []time.Duration // to read: those of the configuration first, and former ones
	Names         topics.Names
	Service, Node string
	Opts          []kgo.Opt   // of further clients
	Client        *kgo.Client // for requests
	Pool          *hop.Pool
	Reporter      *Reporter
	Metrics       *Metrics
	Logger        *slog.Logger
	Rights        *kafka.Tolerance // for those that routing can do without
	// Sender sends webhooks, which are tried again after the delays of WebhookRetries.
	Sender         *deliver.Sender
	WebhookRetries []time.Duration
	// CreateTopics lets the dispatcher make user topics that agents name, and those that replies go to.
	CreateTopics bool

	asks  *asks         // of tasks that may come by; set by NewFleet
	unrun *worker.Unrun // tells of tasks that are settled here; set by NewFleet
}

func (e *Environment) admin() *kadm.Client { return kadm.NewClient(e.Client) }

// isDispatcher reports whether a static member's instance id is a dispatcher's.
func (e *Environment) isDispatcher(instance string) bool {
	return strings.HasPrefix(instance, e.Service+".")
}

// replaced is the error of a process whose place in a group went to a newer one of its name: it names both.
func (e *Environment) replaced(ctx context.Context) error {
	return e.Reporter.Replaced(context.WithoutCancel(ctx), e.Opts, hop.ErrReplaced)
}
