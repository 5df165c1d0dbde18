package guard

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reeve-run/reeve/internal/proc"
)

// variable tells the child that it is one: "<guard's pid>". It is taken out of the environment at once, so that no
// process of the child takes itself for one.
const variable = "_REEVE_GUARD"

// lifelineFD is where the child finds its end of the lifeline.
const lifelineFD = 3

// killLimit bounds how long the guard waits for killed processes to go; only one that hangs in the kernel takes longer.
const killLimit = 10 * time.Second

// exitSelf is the exit code of a guard that couldn't do its work.
const exitSelf = 1

// Child is the guarded process's side.
type Child struct {
	orphaned chan struct{}
}

// Run makes this process a guard and returns its exit code, with a nil Child, when all is over; in the guarded process
// it returns a Child at once. It is the first thing that a main function calls, before any goroutine or file.
func Run() (*Child, int) {
	if parent, ok := os.LookupEnv(variable); ok {
		_ = os.Unsetenv(variable)
		c, err := newChild(parent)
		if err != nil {
			fmt.Fprintf(os.Stderr, "start under a guard: %v\n", err)
			return nil, exitSelf
		}
		return c, 0
	}
	code, err := watch()
	if err != nil {
		fmt.Fprintf(os.Stderr, "guard: %v\n", err)
	}
	return nil, code
}

// newChild takes up the lifeline.
func newChild(parent string) (*Child, error) {
	var st unix.Stat_t
	if err := unix.Fstat(lifelineFD, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, fmt.Errorf("the variable %s is set, and there is no lifeline: unset it", variable)
	}
	unix.CloseOnExec(lifelineFD)
	if err := unix.SetNonblock(lifelineFD, true); err != nil {
		return nil, fmt.Errorf("open lifeline: %w", err)
	}
	f := os.NewFile(lifelineFD, "lifeline")
	c := &Child{orphaned: make(chan struct{})}
	go func() { // it lives as long as the process: that is its purpose
		defer close(c.orphaned)
		_, _ = f.Read(make([]byte, 1)) // nobody writes: it returns when the guard is gone
		_ = f.Close()
	}()
	if pid, err := strconv.Atoi(parent); err != nil || pid != os.Getppid() {
		return nil, errors.New("the guard was gone before its child had started")
	}
	return c, nil
}

// Orphaned is closed when the guard has ended.
func (c *Child) Orphaned() <-chan struct{} { return c.orphaned }

// OnOrphan calls end when the guard has ended, and then exits the process with code 1. End must not block for long:
// it kills, and waits for nothing that may not come.
func (c *Child) OnOrphan(end func()) {
	go func() {
		<-c.orphaned
		end()
		fmt.Fprintln(os.Stderr, "the guard process is gone: all agents were ended, exiting")
		os.Exit(exitSelf)
	}()
}

// watch is the guard's life.
func watch() (int, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return exitSelf, fmt.Errorf("become a subreaper: %w", err)
	}
	signals := make(chan os.Signal, 16) // before the start, so that none is missed
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	pid, lifeline, err := start()
	if err != nil {
		return exitSelf, err
	}
	defer func() { _ = lifeline.Close() }()

	// A pidfd, so that a signal on its way while the child is reaped can't hit another process of the same number.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return exitSelf, fmt.Errorf("pin child %d: %w", pid, err)
	}
	go forward(fd, signals) // for the rest of the guard's life
	status, err := reapUntil(pid)
	if err != nil {
		return exitSelf, err
	}
	return exitCode(status), killRest()
}

// start runs this program again, with the lifeline as its fourth file.
func start() (int, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, nil, fmt.Errorf("open lifeline: %w", err)
	}
	defer func() { _ = r.Close() }()
	pid, err := syscall.ForkExec(executable(), os.Args, &syscall.ProcAttr{
		Env:   append(os.Environ(), variable+"="+strconv.Itoa(os.Getpid())),
		Files: []uintptr{0, 1, 2, r.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		_ = w.Close()
		return 0, nil, fmt.Errorf("start %s again: %w", os.Args[0], err)
	}
	return pid, w, nil
}

// executable is the running program, also where its file was replaced meanwhile.
func executable() string {
	if path, err := os.Executable(); err == nil && !strings.HasSuffix(path, " (deleted)") {
		return path
	}
	return "/proc/self/exe"
}

// forward passes signals on to the child; once that has ended they go nowhere.
func forward(fd int, signals <-chan os.Signal) {
	for s := range signals {
		sig := s.(syscall.Signal)
		if sig == syscall.SIGHUP { // the terminal is gone: an orderly end, which the child's default for it wouldn't be
			sig = syscall.SIGTERM
		}
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
}

// reapUntil reaps whatever ends as a child of the guard, until the one meant has.
func reapUntil(child int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for child %d: %w", child, err)
		case pid == child:
			return status, nil
		}
	}
}

// killRest kills the guard's children until it has none: the children of one that died become its own.
func killRest() error {
	limit := time.NewTimer(killLimit)
	defer limit.Stop()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		if none := killChildren(); none {
			return nil
		}
		select {
		case <-again.C:
		case <-limit.C:
			left, _ := proc.Children(os.Getpid())
			return fmt.Errorf("processes %v didn't end within %s of SIGKILL", left, killLimit)
		}
	}
}

// killChildren kills every child and reaps those that have ended. Only the guard reaps them, so no number can be
// another's.
func killChildren() (none bool) {
	children, err := proc.Children(os.Getpid())
	if err != nil {
		return false
	}
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD):
			return true
		case err != nil || pid == 0:
			return false
		}
	}
}

// exitCode is what a shell would make of a status.
func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
