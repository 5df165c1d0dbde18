package process

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/reeve-run/reeve/internal/proc"
)

// Command says what to start.
type Command struct {
	Path string   // of the program
	Args []string // behind the program's name
	Env  []string // all of it, but for the mark
	Dir  string
	Mark proc.Mark
	// Own gives the protocol descriptors of its own, 3 and 4, for a program that can't keep 0 and 1 for it: 0 is empty
	// then, and 1 goes where 2 does.
	Own bool
}

// Starter starts processes. The kernel kills a process with Pdeathsig when the thread that started it ends, so one
// goroutine, which keeps its thread, starts them all and ends with Close, when they are gone.
type Starter struct {
	requests chan request
	done     chan struct{}
	close    sync.Once
	// condemned says that this program is about to exit and has killed what it started: nobody is to take that for a
	// crash and write it down.
	condemned atomic.Bool
}

type request struct {
	cmd   Command
	files []uintptr
	reply chan<- started
}

type started struct {
	pid int
	err error
}

// NewStarter makes a Starter.
func NewStarter() *Starter {
	s := &Starter{requests: make(chan request), done: make(chan struct{})}
	go s.run()
	return s
}

// Condemn lets no process's end be told any more: the caller kills them all and exits the program.
func (s *Starter) Condemn() { s.condemned.Store(true) }

// Close ends the starter. What it started and hasn't ended yet is killed by the kernel.
func (s *Starter) Close() {
	s.close.Do(func() { close(s.requests) })
	<-s.done
}

func (s *Starter) run() {
	defer close(s.done)
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for r := range s.requests {
		pid, err := fork(r.cmd, r.files)
		r.reply <- started{pid, err}
	}
}

func fork(c Command, files []uintptr) (int, error) {
	return syscall.ForkExec(c.Path, append([]string{c.Path}, c.Args...), &syscall.ProcAttr{
		Dir: c.Dir, Env: append(c.Env[:len(c.Env):len(c.Env)], c.Mark.Env()), Files: files,
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
}

// Start starts a process. Its pipes are the caller's to close.
func (s *Starter) Start(c Command) (*Process, error) {
	var child []*os.File // the child's ends, closed here in any case
	var ours []*os.File
	defer func() { closeAll(child) }()
	pipe := func(childReads bool) error {
		r, w, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("open pipe: %w", err)
		}
		if childReads {
			child, ours = append(child, r), append(ours, w)
		} else {
			child, ours = append(child, w), append(ours, r)
		}
		return nil
	}
	for _, childReads := range []bool{true, false, false} {
		if err := pipe(childReads); err != nil {
			closeAll(ours)
			return nil, err
		}
	}
	files, err := layout(c.Own, &child)
	if err != nil {
		closeAll(ours)
		return nil, err
	}
	reply := make(chan started, 1)
	s.requests <- request{c, files, reply}
	st := <-reply
	if st.err != nil {
		closeAll(ours)
		return nil, fmt.Errorf("start %s in %s: %w", c.Path, c.Dir, st.err)
	}
	p := &Process{pid: st.pid, starter: s, mark: c.Mark, Stdin: ours[0], Stdout: ours[1], Stderr: ours[2], exited: make(chan struct{})}
	go p.wait()
	return p, nil
}

// layout orders the child's descriptors. Fd puts a pipe's end into blocking mode, which is what a child expects of
// its end.
func layout(own bool, child *[]*os.File) ([]uintptr, error) {
	in, out, errs := (*child)[0].Fd(), (*child)[1].Fd(), (*child)[2].Fd()
	if !own {
		return []uintptr{in, out, errs}, nil
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	*child = append(*child, null)
	return []uintptr{null.Fd(), errs, errs, in, out}, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
