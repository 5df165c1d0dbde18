package process

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reeve-run/reeve/internal/proc"
)

// Process is an agent's process that was started. Its methods are safe for concurrent use.
type Process struct {
	pid     int
	mark    proc.Mark
	starter *Starter
	// Stdin, Stdout and Stderr are the supervisor's ends of its pipes.
	Stdin, Stdout, Stderr *os.File

	mu     sync.Mutex
	reaped bool
	status Status
	exited chan struct{}
}

// Status is how a process ended.
type Status struct {
	Code   int            // where it exited
	Signal syscall.Signal // where a signal ended it, else 0
}

// String says it for people.
func (s Status) String() string {
	if s.Signal != 0 {
		return fmt.Sprintf("was ended by signal %d (%s)", int(s.Signal), unix.SignalName(s.Signal))
	}
	return fmt.Sprintf("exited with code %d", s.Code)
}

// Clean reports whether the process exited with code 0.
func (s Status) Clean() bool { return s == Status{} }

// PID is the process's number, and its group's.
func (p *Process) PID() int { return p.pid }

// Exited is closed when the process and everything that it started has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Status is how it ended; call it after Exited.
func (p *Process) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Left reports whether something that the process has started since a time still runs, or whether nobody can tell.
func (p *Process) Left(since time.Time) bool {
	young, err := proc.Young(proc.Of(p.mark), since)
	return err != nil || slices.ContainsFunc(young, func(pid int) bool { return pid != p.pid })
}

// Terminate sends SIGTERM to the process's group.
func (p *Process) Terminate() { p.signal(syscall.SIGTERM) }

// Kill sends SIGKILL to the process's group. What left the group is killed when the process has ended.
func (p *Process) Kill() { p.signal(syscall.SIGKILL) }

func (p *Process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = syscall.Kill(-p.pid, s)
	}
}

// wait sees the process to its end.
func (p *Process) wait() {
	for {
		err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.Kill()
	// Errors are of processes that the supervisor may not signal: one that became another user. Nothing more can be done.
	_, _ = proc.KillMarked(proc.Of(p.mark))
	p.reap()
	if !p.starter.condemned.Load() {
		close(p.exited)
	}
}

func (p *Process) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(p.pid, &ws, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.reaped = true
	if ws.Signaled() {
		p.status.Signal = ws.Signal()
	} else {
		p.status.Code = ws.ExitStatus()
	}
}
