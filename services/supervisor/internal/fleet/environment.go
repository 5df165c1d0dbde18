package fleet

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/supervisor/internal/launch"
	"github.com/reeve-run/reeve/services/supervisor/internal/process"
	"github.com/reeve-run/reeve/services/supervisor/internal/report"
)

// Environment is what all agents of a supervisor share. All fields are required, but CreateTopics.
type Environment struct {
	Kafka         config.Kafka
	Names         topics.Names
	Service, Node string
	Opts          []kgo.Opt   // of further clients
	Client        *kgo.Client // for requests and the status topic
	Pool          *hop.Pool
	Starter       *process.Starter
	Launcher      launch.Launcher
	Reporter      *report.Reporter
	Logger        *slog.Logger
	// CreateTopics lets workers make reply topics that don't exist.
	CreateTopics bool

	instances atomic.Int64
}

// nextID names an instance.
func (e *Environment) nextID() string {
	return e.Node + "-" + strconv.FormatInt(e.instances.Add(1), 10)
}

// replaced is the error of a process whose place in a group went to a newer one of its name: it names both.
func (e *Environment) replaced(ctx context.Context, cause error) error {
	return e.Reporter.Replaced(ctx, e.Opts, cause)
}
