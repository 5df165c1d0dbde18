package testenv

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAPrefixLeavesNothingBehind(t *testing.T) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(Brokers(t)...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	var made string
	t.Run("a test", func(t *testing.T) {
		made = Prefix(t) + ".topic"
		if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, made); err != nil {
			t.Fatal(err)
		}
	})
	waitFor(t, func() bool {
		left, err := adm.ListTopics(t.Context())
		return err == nil && !left.Has(made)
	})
}

func TestASchemaIsTheTestsOwnAndLeavesNothingBehind(t *testing.T) {
	var one, two string
	t.Run("a test", func(t *testing.T) {
		one, two = Schema(t), Schema(t)
		for _, dsn := range []string{one, two} {
			if err := execute(t.Context(), dsn, "CREATE TABLE things (id int)"); err != nil {
				t.Fatal(err)
			}
		}
	})
	db, err := sql.Open("postgres", one)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var table sql.NullString
	if err := db.QueryRowContext(t.Context(), "SELECT to_regclass('things')").Scan(&table); err != nil || table.Valid {
		t.Errorf("the table is %v, %v", table, err)
	}
}

// The test runs itself as the process that is killed.
func TestAServerDoesntOutliveAKilledTestRun(t *testing.T) {
	const role = "TESTENV_ROLE"
	if os.Getenv(role) == "owner" {
		ownSleeper(t)
		return
	}
	owner := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	owner.Env = append(os.Environ(), role+"=owner")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	if _, err := fmt.Sscan(line, &pid, &dir); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	waitFor(t, func() bool {
		_, err := os.Stat(dir)
		return syscall.Kill(pid, 0) != nil && os.IsNotExist(err)
	})
	if _, err := os.Stat(dir + ".log"); !os.IsNotExist(err) {
		t.Errorf("its log is left: %v", err)
	}
}

// ownSleeper starts a server that never answers, says which, and waits to be killed.
func ownSleeper(t *testing.T) {
	dir, err := os.MkdirTemp("", "reeve-test-sleeper-")
	if err != nil {
		t.Fatal(err)
	}
	c, err := startChild(dir, "KILL", nil, "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return c.pid() != 0 })
	fmt.Println(c.pid(), dir)
	<-time.After(time.Minute)
}

func TestAServerThatDoesntStartSaysWhy(t *testing.T) {
	dir := t.TempDir() + "/data"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := startChild(dir, "KILL", nil, "sh", "-c", "echo the port is taken; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	err = c.await(t.Context(), func(context.Context) error { return fmt.Errorf("nobody listens") })
	if err == nil || !strings.Contains(err.Error(), "status 3") || !strings.Contains(err.Error(), "the port is taken") {
		t.Error(err)
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); !done(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it didn't happen in a minute")
		}
	}
}

func TestTheNextProviderStepsInUnlessOneIsNamed(t *testing.T) {
	can := func() string { return "" }
	providers := []provider{
		{name: "absent", missing: func() string { return "not installed" }},
		{name: "broken", missing: can, start: func(context.Context, Say) (*Server, error) { return nil, fmt.Errorf("no network") }},
		{name: "good", missing: can, start: func(context.Context, Say) (*Server, error) { return &Server{About: "good"}, nil }},
	}
	var said []string
	say := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	s, err := first(t.Context(), say, "Kafka", "", providers)
	if err != nil || s.About != "good" || len(said) != 1 || !strings.Contains(said[0], "no network") {
		t.Errorf("%v, %v, said %q", s, err, said)
	}
	if _, err := first(t.Context(), say, "Kafka", "broken", providers); err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("the named one: %v", err)
	}
	if _, err := first(t.Context(), say, "Kafka", "", providers[:2]); err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("none left: %v", err)
	}
}

func TestAShutGateHoldsWhatIsSentUntilItOpens(t *testing.T) {
	target, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	g, err := newGate(target.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	client, err := net.Dial("tcp", g.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	receive := func(limit time.Duration) string {
		t.Helper()
		if err := server.SetReadDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 8)
		n, err := server.Read(buf)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	send := func(s string) {
		t.Helper()
		if _, err := client.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	send("one")
	if got := receive(10 * time.Second); got != "one" {
		t.Fatalf("an open gate lets %q through", got)
	}
	g.Shut()
	send("two")
	if got := receive(100 * time.Millisecond); got != "" {
		t.Fatalf("a shut gate lets %q through", got)
	}
	g.Open()
	if got := receive(10 * time.Second); got != "two" {
		t.Fatalf("opened again it lets %q through", got)
	}
}
