package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/reeve-run/reeve/pkg/agent"
)

// A program with one agent. Signals are its own business.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	accept := func(_ context.Context, e agent.Event[order]) (accepted, error) {
		if e.Content.Amount < 0 {
			return accepted{}, agent.InvalidInput(errors.New("a negative amount"))
		}
		return accepted{ID: e.Content.ID, Attempt: e.DeliveryAttempts()}, nil
	}
	if err := agent.Run(ctx, agent.Options{}, agent.Agent{Topic: "orders", Name: "hello", Handler: agent.Handle(accept)}); err != nil {
		log.Print(err)
	}
}

// Several agents in one program, one of them only in production, another only while what it needs is there; and a readiness
// probe beside them.
func ExampleRunner() {
	ctx := context.Background()
	r, err := agent.NewRunner(agent.Options{Node: "shop-1", OnAlert: func(a agent.Alert) { log.Print(a.Message) }})
	if err != nil {
		log.Fatal(err)
	}
	handler := agent.Handle(func(context.Context, agent.Event[order]) (any, error) { return nil, nil })
	wanted := []agent.Agent{{Topic: "orders", Name: "stock", Handler: handler, Concurrency: 64, MaxRetries: new(5)}}
	if os.Getenv("ENV") == "production" {
		wanted = append(wanted, agent.Agent{Topic: "orders", Name: "billing", Handler: handler, RequestTimeout: 10 * time.Second})
	}
	if conn, err := net.Dial("tcp", "127.0.0.1:5432"); err == nil {
		_ = conn.Close()
		wanted = append(wanted, agent.Agent{Topic: "orders", Name: "archive", Handler: handler})
	}
	for _, a := range wanted {
		if err := r.Register(ctx, a); err != nil {
			log.Fatal(err)
		}
	}
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := r.Healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	if err := r.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// What a function publishes becomes visible together with its outcome, or not at all.
func ExampleTask_Publish() {
	bill := func(_ context.Context, e agent.Event[order]) (any, error) {
		invoice, err := agent.Message{Topic: "invoices", Key: e.Key(), Content: e.Content, CorrelationID: e.CorrelationID(), CausationID: e.ID()}.Record()
		if err != nil {
			return nil, err
		}
		return nil, e.Publish(invoice)
	}
	_ = agent.Agent{Topic: "orders", Name: "billing", Handler: agent.Handle(bill)}
}

// An error says what becomes of its task, however deep it is wrapped.
func ExamplePermanent() {
	err := fmt.Errorf("charge the card: %w", agent.Permanent(errors.New("it is blocked")))
	var e *agent.Error
	fmt.Println(errors.As(err, &e), e.Class)
	fmt.Println(err)
	// Output:
	// true permanent
	// charge the card: it is blocked
}

// An envelope is what the registry and `reeve publish` write, too.
func ExampleMessage() {
	r, err := agent.Message{Topic: "orders", Content: map[string]int{"id": 17}, ID: "e-1", CorrelationID: "c-1", CreatedAt: time.Unix(1700000000, 0)}.Record()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(r.Value))
	// Output:
	// {"id":"e-1","topic":"orders","payload":{"content":{"id":17},"webhook":null,"reply_to":null},"tenant_id":null,"correlation_id":"c-1","causation_id":null,"source":null,"created_at":1700000000,"delivery_attempts":1}
}

// A middleware that logs every attempt. A panic passes through, so what has to happen in any case is deferred. For traces
// there is package agentotel.
func ExampleMiddleware() {
	logged := func(next agent.Handler) agent.Handler {
		return func(ctx context.Context, t *agent.Task) (result json.RawMessage, err error) {
			begin := time.Now()
			defer func() {
				slog.Info("attempt", slog.String("task", t.TaskID()), slog.Int("number", t.DeliveryAttempts()), slog.Duration("took", time.Since(begin)), slog.Any("error", err))
			}()
			return next(ctx, t)
		}
	}
	_ = agent.Options{Middleware: []agent.Middleware{logged}}
}

// Figures are for a collector, which asks for them whenever it is asked itself. For Prometheus there is package agentprom.
func ExampleRunner_Figures() {
	r, err := agent.NewRunner(agent.Options{Node: "shop-1", Environ: []string{}})
	if err == nil {
		err = r.Register(context.Background(), agent.Agent{Topic: "orders", Name: "hello", Handler: agent.Handle(accept)})
	}
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range r.Figures() {
		fmt.Printf("attempts_total{topic=%q,agent=%q,outcome=\"completed\"} %d\n", f.Topic, f.Name, f.Attempts["completed"])
		fmt.Printf("attempts_running{topic=%q,agent=%q} %d\n", f.Topic, f.Name, f.Running)
	}
	// Output:
	// attempts_total{topic="orders",agent="hello",outcome="completed"} 0
	// attempts_running{topic="orders",agent="hello"} 0
}
