package postgres

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/testenv"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

func TestOpenWaitsAndThenSaysWhereWithoutThePassword(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes a port that nobody answers on once it is closed
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	var log bytes.Buffer
	began := time.Now()
	_, err = Open(t.Context(), "postgres://reeve:hunter2@"+addr+"/history", Options{Patience: 600 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if n := strings.Count(log.String(), "wait for Postgres"); n != 1 || strings.Contains(log.String(), "hunter2") || !strings.Contains(log.String(), addr) {
		t.Errorf("the log is %q", log.String())
	}
	var unreachable *Unreachable
	if !errors.As(err, &unreachable) || unreachable.ExitCode() != 5 || time.Since(began) < retryEvery {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	for text, want := range map[string]bool{addr + "/history": true, "REEVE_DATABASE_URL": true, "hunter2": false, "reeve:": false} {
		if strings.Contains(err.Error(), text) != want {
			t.Errorf("%q: contains %q is not %v", err, text, want)
		}
	}
}

func TestOpenGivesUpAtOnceOnAnAnswerThatWillNotChange(t *testing.T) {
	dsn := testenv.Schema(t)
	began := time.Now()
	_, err := Open(t.Context(), strings.Replace(dsn, "search_path", "no_such_setting", 1), Options{})
	if err == nil || time.Since(began) >= patience {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestOpenRefusesWhatIsNoURL(t *testing.T) {
	for _, url := range []string{"", "host=localhost password=hunter2", "mysql://u:hunter2@h/d", "postgres://u:hunter2@h:port/d"} {
		_, err := Open(t.Context(), url, Options{Patience: time.Millisecond})
		if err == nil || !strings.Contains(err.Error(), "REEVE_DATABASE_URL") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestDown(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{context.Canceled, false},
		{errors.New("x"), false},
		{&pq.Error{Code: "23505"}, false},
		{&pq.Error{Code: "57014"}, false}, // a query was cancelled
		{&pq.Error{Code: "57P01"}, true},  // it shuts down
		{&pq.Error{Code: "53300"}, true},  // too many connections
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, true},
		{fmt.Errorf("list: %w", io.EOF), true},
		{driver.ErrBadConn, true},
	} {
		if got := Down(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
