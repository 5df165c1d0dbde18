package database

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child with a parent thread of its own: the kernel sends the death signal when the thread that forked
// ends, and Go ends threads as it likes.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine, after the child
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // its exit status says nothing that its log doesn't
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// end asks by signal after signal until the process has ended, each with its time.
func (p *process) end(steps ...step) {
	for _, s := range steps {
		_ = p.cmd.Process.Signal(s.signal) // it may have ended by itself
		limit := time.NewTimer(s.wait)
		select {
		case <-p.done:
			limit.Stop()
			return
		case <-limit.C:
		}
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

type step struct {
	signal os.Signal
	wait   time.Duration
}

// evict ends a server that a killed process left behind on a data directory, and takes away a lock file whose number
// is another process's by now, which Postgres would take for a living server.
func evict(data string) error {
	path := filepath.Join(data, "postmaster.pid")
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 || !serves(pid, data) {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	for _, s := range []step{{syscall.SIGQUIT, 6 * time.Second}, {syscall.SIGKILL, 4 * time.Second}} {
		if serves(pid, data) {
			_ = syscall.Kill(pid, s.signal.(syscall.Signal))
		}
		if gone(pid, data, s.wait) {
			return nil
		}
	}
	return errors.New("the Postgres process " + first + " of this directory doesn't end: kill it")
}

func gone(pid int, data string, limit time.Duration) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for serves(pid, data) {
		select {
		case <-tick.C:
		case <-deadline.C:
			return false
		}
	}
	return true
}

// serves reports whether a process is a Postgres server on a data directory. A zombie has no command line and is none.
func serves(pid int, data string) bool {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && strings.Contains(string(line), "postgres\x00-D\x00"+data+"\x00")
}
