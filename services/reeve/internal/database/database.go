package database

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	_ "github.com/lib/pq" // the driver
)

const (
	role       = "reeve"
	startLimit = 60 * time.Second // recovery after a kill may have much to read
	// restartAfter is the pause before a server that ended unasked is started again.
	restartAfter = time.Second
	// maxSocket is the longest path that fits a socket's address, with the name that Postgres gives it.
	maxSocket = 107 - len("/.s.PGSQL.5432.lock")
)

// Config is what a database needs.
type Config struct {
	// Dir is where data, socket and log are kept; it is made if needed, and nobody else may use it meanwhile.
	Dir string
	// Say tells a person of a download. Defaults to silence.
	Say func(format string, args ...any)
	// Logger is told when the server ends unasked. Defaults to none.
	Logger *slog.Logger
}

// Database is a running Postgres.
type Database struct {
	config  Config
	owner   *owner
	install installation
	data    string
	socket  string

	stop context.CancelFunc
	work sync.WaitGroup
}

// Start makes the database if the directory has none, recovers it if it was left in disorder, and returns when it
// answers.
func Start(ctx context.Context, c Config) (*Database, error) {
	if c.Say == nil {
		c.Say = func(string, ...any) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("start Postgres: %w", err)
	}
	c.Dir = dir
	db := &Database{config: c, owner: choose(), data: filepath.Join(dir, "data")}
	if err := db.prepare(ctx); err != nil {
		return nil, fmt.Errorf("start Postgres in %s: %w", dir, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	p, err := db.serve(ctx)
	if err != nil {
		return nil, fmt.Errorf("start Postgres in %s: %w", dir, err)
	}
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	db.stop = stop
	db.work.Go(func() { db.keep(keeping, p) })
	return db, nil
}

// URL is how a client connects.
func (db *Database) URL() string {
	u := url.URL{Scheme: "postgres", Path: "/postgres", RawQuery: url.Values{"host": {db.socket}, "user": {role}, "sslmode": {"disable"}}.Encode()}
	return u.String()
}

// Close stops the server and waits for its end, at most about 20 s. Clients are disconnected.
func (db *Database) Close() {
	db.stop()
	db.work.Wait()
	if !strings.HasPrefix(db.socket, db.config.Dir) {
		_ = os.RemoveAll(db.socket) // a leftover in the temporary directory is harmless
	}
}

// prepare makes the directory ready for a server.
func (db *Database) prepare(ctx context.Context) error {
	if err := os.MkdirAll(db.config.Dir, 0o700); err != nil {
		return err
	}
	made, err := version(db.data)
	if err != nil {
		return err
	}
	if db.install, err = find(ctx, made, db.config.Say); err != nil {
		return err
	}
	if err := evict(db.data); err != nil {
		return err
	}
	if err := db.owner.take(db.config.Dir); err != nil {
		return err
	}
	if made == 0 {
		if err := db.initialize(ctx); err != nil {
			return err
		}
	}
	return db.makeSocket()
}

// version is the major version that wrote a data directory, 0 where there is none.
func version(data string) (int, error) {
	b, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if n := majorOf(string(b)); n > 0 {
		return n, nil
	}
	return 0, fmt.Errorf("%s/PG_VERSION is damaged: start on another --data", data)
}

// initialize makes the data directory beside its place and moves it there when it is whole.
func (db *Database) initialize(ctx context.Context) error {
	part := db.data + ".part"
	for _, leftover := range []string{part, db.data} { // without PG_VERSION the latter is none
		if err := os.RemoveAll(leftover); err != nil {
			return err
		}
	}
	cmd := db.command("initdb", "-D", part, "-U", role, "-A", "trust", "-E", "UTF8", "--locale=C")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	p, err := startProcess(cmd)
	if err != nil {
		return fmt.Errorf("run initdb: %w", err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.end(step{syscall.SIGTERM, time.Second})
		return ctx.Err()
	}
	if !cmd.ProcessState.Success() {
		return fmt.Errorf("run initdb: %s\n%s", cmd.ProcessState, bytes.TrimSpace(output.Bytes()))
	}
	return os.Rename(part, db.data)
}

// command is a program of the installation, run as the owner.
func (db *Database) command(name string, args ...string) *exec.Cmd {
	cmd := db.owner.command([]string{db.config.Dir, db.install.bin}, db.install.program(name), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=" + db.config.Dir}
	return cmd
}

// makeSocket makes the socket's directory: in the data directory, or where that is too long a path for a socket, a
// private one in the temporary directory.
func (db *Database) makeSocket() error {
	db.socket = filepath.Join(db.config.Dir, "socket")
	if len(db.socket) > maxSocket {
		short, err := os.MkdirTemp("", "reeve-pg-")
		if err != nil {
			return err
		}
		db.socket = short
	}
	if err := os.MkdirAll(db.socket, 0o700); err != nil {
		return err
	}
	return db.owner.take(db.socket)
}

// serve starts the server and returns when it answers. One that ends before that is started again: processes of a
// killed predecessor may still be on their way out.
func (db *Database) serve(ctx context.Context) (*process, error) {
	for attempt := 1; ; attempt++ {
		p, err := db.launch()
		if err != nil {
			return nil, err
		}
		if err = db.await(ctx, p); err == nil {
			return p, nil
		}
		p.end(stopSteps()...)
		if attempt == 5 || ctx.Err() != nil {
			return nil, err
		}
		select {
		case <-time.After(restartAfter):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (db *Database) launch() (*process, error) {
	log, err := os.OpenFile(db.log(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	if err := db.owner.take(db.log()); err != nil {
		return nil, err
	}
	cmd := db.command("postgres", "-D", db.data, "-k", db.socket, "-c", "listen_addresses=",
		"-c", "port=5432", "-c", "unix_socket_permissions=0700", "-c", "max_connections=100", "-c", "logging_collector=off")
	cmd.Stdout, cmd.Stderr = log, log
	p, err := startProcess(cmd)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", db.install.program("postgres"), err)
	}
	return p, nil
}

func (db *Database) log() string { return filepath.Join(db.config.Dir, "postgres.log") }

// await returns when the server answers.
func (db *Database) await(ctx context.Context, p *process) error {
	client, err := sql.Open("postgres", db.URL())
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := client.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("it ended: %s", db.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("it doesn't answer: %w: its log is %s", err, db.log())
		case <-tick.C:
		}
	}
}

// lastWords are the last lines of the server's log.
func (db *Database) lastWords() string {
	b, _ := os.ReadFile(db.log())
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// keep starts the server again when it ends unasked, until the context ends; then it stops it.
func (db *Database) keep(ctx context.Context, p *process) {
	for {
		select {
		case <-ctx.Done():
			p.end(stopSteps()...)
			return
		case <-p.done:
		}
		db.config.Logger.Warn("Postgres ended unasked, starting it again", slog.String("log", db.log()))
		again, err := db.serve(ctx)
		switch {
		case err == nil:
			p = again
		case ctx.Err() != nil:
			return
		default:
			db.config.Logger.Error("start Postgres again", slog.Any("error", err))
		}
	}
}

// stopSteps: clients are disconnected and all is written out; then without a checkpoint.
func stopSteps() []step {
	return []step{{syscall.SIGINT, 10 * time.Second}, {syscall.SIGQUIT, 6 * time.Second}}
}
