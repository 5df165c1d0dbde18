package leader

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

func database(t *testing.T) *sqlx.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	return db
}

// candidate runs a lease and tells when its work begins and ends.
func candidate(t *testing.T, db *sqlx.DB, holder string) (began, ended chan string, stop func()) {
	t.Helper()
	l := &Lease{DB: db, Holder: holder, Logger: slog.New(slog.DiscardHandler)}
	began, ended = make(chan string, 10), make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx, func(ctx context.Context) {
			began <- holder
			<-ctx.Done()
			ended <- holder
		})
	}()
	return began, ended, func() { cancel(); <-done }
}

func await(t *testing.T, what string, c <-chan string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatal("waited in vain until " + what)
	}
}

func TestOneLeadsAndTheNextFollowsAtOnce(t *testing.T) {
	db := database(t)
	firstBegan, _, stopFirst := candidate(t, db, "a")
	await(t, "the first leads", firstBegan)
	secondBegan, _, stopSecond := candidate(t, db, "b")
	defer stopSecond()
	select {
	case <-secondBegan:
		t.Fatal("two lead at once")
	case <-time.After(2 * waits):
	}
	stopFirst()
	handedOver := time.Now()
	await(t, "the second leads", secondBegan)
	if took := time.Since(handedOver); took > Term-waits {
		t.Errorf("the hand-over took %s", took)
	}
}

func TestANewLifeOfTheSameNameTakesOverAndTheOldOneEnds(t *testing.T) {
	db := database(t)
	oldBegan, oldEnded, stopOld := candidate(t, db, "a")
	defer stopOld()
	await(t, "the old one leads", oldBegan)
	newBegan, newEnded, stopNew := candidate(t, db, "a")
	defer stopNew()
	await(t, "the new one leads", newBegan)
	await(t, "the old one ends its work", oldEnded)
	select {
	case <-oldBegan:
		t.Error("the old one took it back")
	case <-newEnded:
		t.Error("the new one lost it")
	case <-time.After(2 * waits):
	}
}
