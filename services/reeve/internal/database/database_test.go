package database

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// directory, set in the environment, makes the test binary the owner of a database there, to be killed.
const directory = "DATABASE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(directory); dir != "" {
		db, err := Start(context.Background(), Config{Dir: dir})
		if err != nil {
			panic(err)
		}
		fmt.Println(db.URL())
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	goleak.VerifyTestMain(m)
}

func within(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, dir string) *Database {
	t.Helper()
	db, err := Start(within(t, time.Minute), Config{Dir: dir, Say: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func execute(t *testing.T, url, statement string) {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(within(t, time.Minute), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func pid(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	n, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The directory is below one that only this user enters, as a home is.
func private(t *testing.T) string {
	t.Helper()
	home := filepath.Join(t.TempDir(), "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(home, "database")
}

func TestWhatWasWrittenIsThereAtTheNextStart(t *testing.T) {
	dir := private(t)
	db := start(t, dir)
	execute(t, db.URL(), "CREATE TABLE t (n int)")
	server := pid(t, dir)
	db.Close()
	if serves(server, filepath.Join(dir, "data")) {
		t.Error("the server outlived Close")
	}
	db = start(t, dir)
	defer db.Close()
	execute(t, db.URL(), "INSERT INTO t VALUES (1)")
}

func TestADeepDirectoryGetsItsSocketElsewhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 20), "database")
	db := start(t, dir)
	execute(t, db.URL(), "SELECT 1")
	db.Close()
	if _, err := os.Stat(db.socket); err == nil {
		t.Errorf("%s was left behind", db.socket)
	}
}

// After a SIGKILL of its parent the server is gone within seconds, and a start at once finds all that was committed.
func TestAKilledParentTakesTheServerWithItAndLosesNothing(t *testing.T) {
	dir := private(t)
	child := exec.CommandContext(within(t, time.Minute), os.Args[0])
	child.Env = append(os.Environ(), directory+"="+dir)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var url string
	if _, err := fmt.Fscanln(out, &url); err != nil {
		t.Fatal(err)
	}
	execute(t, url, "CREATE TABLE t (n int)")
	server := pid(t, dir)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()

	db := start(t, dir)
	defer db.Close()
	execute(t, db.URL(), "INSERT INTO t VALUES (1)")
	if now := pid(t, dir); now == server || serves(server, filepath.Join(dir, "data")) {
		t.Errorf("the server %d is still there, the new one is %d", server, now)
	}
}

func TestAServerThatDiesIsStartedAgain(t *testing.T) {
	dir := private(t)
	db := start(t, dir)
	defer db.Close()
	if err := syscall.Kill(pid(t, dir), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	client, err := sql.Open("postgres", db.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ctx := within(t, time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for client.PingContext(ctx) != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it doesn't come back")
		}
	}
}

func TestALockFileOfAnotherProcessIsStale(t *testing.T) {
	dir := private(t)
	start(t, dir).Close()
	stale := filepath.Join(dir, "data", "postmaster.pid")
	if err := os.WriteFile(stale, []byte(fmt.Sprintf("%d\n%s\n", os.Getpid(), dir)), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, dir).Close()
}

func TestDataOfAVersionThatIsNotInstalledIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("9.6\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(within(t, time.Minute), Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "written by Postgres 9") {
		t.Errorf("got %v", err)
	}
}
