package harness

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A Process is a running service.
type Process struct {
	Name string // service.node
	URL  string // of /livez, /readyz, /metrics
	PID  int    // 0 where it is no process of this machine

	run   Running
	ended chan struct{}
	code  int   // the exit code, once it has ended
	err   error // why that isn't known
}

// Running is what somebody who starts services gives of one that runs.
type Running interface {
	// Signal sends a signal to the service's first process alone.
	Signal(s syscall.Signal) error
	// Wait returns when it has ended, with its exit code.
	Wait() (int, error)
	// Log is what it wrote, at least the end of it.
	Log() string
}

// NewProcess makes a Process of what runs, and waits for its end from then on.
func NewProcess(name, url string, pid int, run Running) *Process {
	p := &Process{Name: name, URL: url, PID: pid, run: run, ended: make(chan struct{})}
	go func() { // it ends with the service, which End waits for
		p.code, p.err = run.Wait()
		close(p.ended)
	}()
	return p
}

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Exit is its exit code once it has ended. Where a signal ended it, that is -1 for a process of this machine and 128 and
// the signal's number for a container.
func (p *Process) Exit() int {
	<-p.ended
	return p.code
}

// failure says how it ended badly, nil if it didn't.
func (p *Process) failure() error {
	<-p.ended
	if p.err == nil && p.code != 0 {
		return fmt.Errorf("exit code %d", p.code)
	}
	return p.err
}

// Ready waits until /readyz says 200.
func (p *Process) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if p.answers(ctx) {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended before it was ready, with exit code %d\n%s", p.Name, p.code, p.Log())
		case <-ctx.Done():
			return fmt.Errorf("%s wasn't ready in time\n%s", p.Name, p.Log())
		case <-tick.C:
		}
	}
}

func (p *Process) answers(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Log is the end of what it wrote.
func (p *Process) Log() string {
	log := p.run.Log()
	return log[max(0, len(log)-8192):]
}

// Signal sends a signal to the process alone.
func (p *Process) Signal(s syscall.Signal) error { return p.run.Signal(s) }

// Stop asks it to end and waits for that, up to the context's end.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	select {
	case <-p.ended:
		if err := p.failure(); err != nil {
			return fmt.Errorf("%s ended with: %w\n%s", p.Name, err, p.Log())
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w\n%s", p.Name, ctx.Err(), p.Log())
	}
}

// End kills it and waits.
func (p *Process) End() error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	<-p.ended
	return nil
}

// local is a process of this machine.
type local struct {
	cmd *exec.Cmd
	log string
}

func (l *local) Signal(s syscall.Signal) error { return syscall.Kill(l.cmd.Process.Pid, s) }

func (l *local) Wait() (int, error) {
	err := l.cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	}
	return -1, err
}

func (l *local) Log() string {
	b, err := os.ReadFile(l.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// A spawner starts processes that die with this one. Their parent-death signal comes when the thread that forked them
// ends, so one thread does all of it and lives until close.
type spawner struct {
	work chan func()
	done chan struct{}
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		for f := range s.work {
			f()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true // a terminal's Ctrl-C is for the test alone
	result := make(chan error)
	s.work <- func() { result <- cmd.Start() }
	return <-result
}

func (s *spawner) close() {
	close(s.work)
	<-s.done
}
