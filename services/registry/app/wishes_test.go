package app

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/registry/internal/commands"
	"github.com/reeve-run/reeve/services/registry/internal/history"
	"github.com/reeve-run/reeve/services/registry/internal/wishes"
)

// A wish about a task whose agent is paused for weeks is given to those who carry it out as long as it stands, and not once
// its task is finished.
func TestAWishIsIssuedAgainUntilItsTaskIsFinished(t *testing.T) {
	t.Parallel()
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	names := topics.Names{Prefix: testenv.Prefix(t)}
	opts := []kgo.Opt{kgo.SeedBrokers(testenv.Kfake(t).Address)}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := kafka.EnsureTopics(t.Context(), cl, 1, kafka.CommandsTopic(names)); err != nil {
		t.Fatal(err)
	}
	p := &parts{db: db, client: cl, wishes: &wishes.Store{DB: db}, tasks: &history.Store{DB: db}, desk: commands.New(cl, names)}

	given := make(chan command.Command, 10)
	f := command.NewFollower(command.Config{Opts: opts, Names: names, Logger: slog.New(slog.DiscardHandler),
		Handlers: map[command.Verb]command.Handler{command.Cancel: func(c command.Command) { given <- c }}})
	following, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = f.Run(following) }()
	defer func() { stop(); <-ended }()
	next := func() command.Command {
		select {
		case c := <-given:
			return c
		case <-time.After(time.Minute):
			t.Fatal("nothing was given to who carries it out")
			return command.Command{}
		}
	}

	now := time.Now()
	for _, id := range []string{"waits", "finished", "old"} {
		c := command.Command{ID: id, Verb: command.Cancel, Topic: "orders", Agent: "bill", Task: "orders/0/7", Actor: "ann"}
		asked := now
		switch id {
		case "old":
			asked = now.Add(-wishes.Longest - time.Hour)
		case "finished":
			c.Task = "orders/0/8"
		}
		if err := p.wishes.Add(t.Context(), c, asked); err != nil {
			t.Fatal(err)
		}
		if id == "waits" {
			if _, _, err := p.desk.Issue(t.Context(), c, command.Renewal/4, 0); err != nil { // as of long ago
				t.Fatal(err)
			}
		}
	}
	first := next()
	if err := p.renewWishes(t.Context(), now); err != nil { // none is due but the one that has stood too long
		t.Fatal(err)
	}
	finish(t, p, 8)
	if err := p.renewWishes(t.Context(), now.Add(command.MaxLife)); err != nil {
		t.Fatal(err)
	}
	again := next()
	if again.ID != "waits" || again.ID != first.ID || !again.Expires.After(first.Expires.Add(command.MaxLife/2)) {
		t.Errorf("given %+v, and then %+v", first, again)
	}
	var left []string
	if err := db.SelectContext(t.Context(), &left, `SELECT id FROM wishes`); err != nil || len(left) != 1 || left[0] != "waits" {
		t.Errorf("%v stand, %v", left, err)
	}
	if len(given) > 0 {
		t.Errorf("given as well: %+v", <-given)
	}
}

// finish puts a task into the history that is completed.
func finish(t *testing.T, p *parts, offset int64) {
	t.Helper()
	r := &kgo.Record{Partition: 0, Offset: 0, Timestamp: time.Now(), Value: []byte("1")}
	for key, value := range map[string]string{task.HeaderAgent: "orders/bill", task.HeaderOrigin: task.Origin{Topic: "orders", Offset: offset}.ID(), task.HeaderAttempt: "1",
		task.HeaderOutcome: string(task.Completed), task.HeaderSettled: string(task.SettledDone), task.HeaderVersion: "1"} {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	projector := history.NewProjector(p.db, slog.New(slog.DiscardHandler))
	if err := projector.Prepare(t.Context(), []*kgo.Record{r}); err != nil {
		t.Fatal(err)
	}
	conn, err := p.db.Connx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	tx, err := conn.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if err := projector.Write(t.Context(), conn, tx, []*kgo.Record{r}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}
