package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Server is a Kafka or a Postgres that tests may use.
type Server struct {
	// Address is host:port of a Kafka (several parted by commas), or the URL of a Postgres.
	Address string
	// About says for people what it is.
	About string
	// PID is the server's process, 0 where it is external or in this process.
	PID int

	stop func() error
}

// Stop ends the server and removes its data. An external one is left alone.
func (s *Server) Stop() error {
	if s.stop == nil {
		return nil
	}
	return s.stop()
}

// A provider is one way to a server.
type provider struct {
	name string
	// missing says what this machine lacks for it, "" if nothing.
	missing func() string
	start   func(ctx context.Context, say Say) (*Server, error)
}

// Say tells a person what is going on.
type Say func(format string, args ...any)

// first starts the first provider that can; only, unless empty, names the one to use. One that should be able to and
// isn't (Maven without a network) is told of and passed over, so that tests run where they can.
func first(ctx context.Context, say Say, what, only string, providers []provider) (*Server, error) {
	var lacks []string
	for _, p := range providers {
		if only != "" && p.name != only {
			continue
		}
		if m := p.missing(); m != "" {
			lacks = append(lacks, p.name+": "+m)
			continue
		}
		s, err := p.start(ctx, say)
		if err == nil {
			return s, nil
		}
		if err = fmt.Errorf("start %s (%s): %w", what, p.name, err); only != "" || ctx.Err() != nil {
			return nil, err
		}
		say("%v", err)
		lacks = append(lacks, p.name+": it didn't start")
	}
	return nil, fmt.Errorf("start %s: no way to one: %s", what, strings.Join(lacks, "; "))
}

// lifeline is the shell that a server runs below. It ends the server when the read end of the pipe on descriptor 3 says
// that its maker is gone, and removes the data in either case. Being the server's parent it can't hit a process that
// got the number later.
const lifeline = `
"$@" </dev/null 3<&- & server=$!
echo $server >"$DIR/server.pid"
( read -r _ <&3; rm -f "$LOG"; kill -"$SIGNAL" $server ) 2>/dev/null & watch=$!
wait $server
status=$?
kill $watch 2>/dev/null
rm -rf "$DIR"
exit $status
`

// A child is a server's process with its data directory.
type child struct {
	dir    string
	log    string // beside dir, so that it can be read after a failed start
	parent int    // the shell
	hold   *os.File
}

// startChild runs a command that belongs to dir, as the owner of dir, and ends it by signal when this process is gone.
func startChild(dir, signal string, owner *syscall.Credential, command ...string) (*child, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make lifeline: %w", err)
	}
	defer read.Close()
	c := &child{dir: dir, log: dir + ".log", hold: write}
	log, err := os.Create(c.log)
	if err != nil {
		write.Close()
		return nil, fmt.Errorf("make log: %w", err)
	}
	defer log.Close()
	if owner != nil {
		if err := log.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			write.Close()
			return nil, fmt.Errorf("hand over log: %w", err)
		}
	}
	sh := exec.Command("/bin/sh", append([]string{"-c", lifeline, "lifeline"}, command...)...)
	sh.Dir, sh.Env = dir, append(os.Environ(), "DIR="+dir, "LOG="+c.log, "SIGNAL="+signal)
	sh.Stdout, sh.Stderr, sh.ExtraFiles = log, log, []*os.File{read}
	sh.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: owner} // a terminal's Ctrl-C is for the tests alone
	if err := sh.Start(); err != nil {
		write.Close()
		return nil, err
	}
	c.parent = sh.Process.Pid
	return c, nil
}

// pid is the server's own process, 0 if it isn't there yet.
func (c *child) pid() int {
	b, _ := os.ReadFile(filepath.Join(c.dir, "server.pid"))
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// await calls ready until it returns nil, the server ends or the context does.
func (c *child) await(ctx context.Context, ready func(ctx context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		var status syscall.WaitStatus
		if pid, _ := syscall.Wait4(c.parent, &status, syscall.WNOHANG, nil); pid == c.parent {
			c.hold.Close()
			err := fmt.Errorf("it ended with status %d:\n%s", status.ExitStatus(), c.tail())
			return errors.Join(err, os.Remove(c.log))
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it didn't answer in time: %w\n%s", err, c.tail()), c.stop())
		case <-tick.C:
		}
	}
}

// tail is the end of the server's log.
func (c *child) tail() string {
	b, _ := os.ReadFile(c.log)
	return string(b[max(0, len(b)-4096):])
}

// stop ends the server and waits for it.
func (c *child) stop() error {
	c.hold.Close()
	for {
		if _, err := syscall.Wait4(c.parent, nil, 0, nil); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
