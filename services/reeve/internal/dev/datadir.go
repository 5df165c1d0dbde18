package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// format is the version of the data directory's layout; another one is refused.
const format = "1"

const (
	// leaveAlive is how long a start waits for a predecessor whose visible process lives: it may have been killed a
	// moment ago, its guard being at work on what is left.
	leaveAlive = 3 * time.Second
	// leaveDead is how long it waits for one whose visible process is gone.
	leaveDead = 15 * time.Second
)

// dataDir is a data directory that this process holds.
type dataDir struct {
	path string
	lock *os.File
}

func (d *dataDir) broker() string   { return filepath.Join(d.path, "broker") }
func (d *dataDir) database() string { return filepath.Join(d.path, "postgres") }

// release lets another process have the directory.
func (d *dataDir) release() { _ = d.lock.Close() }

// openDataDir makes a data directory or takes an existing one, for the visible process of number pid.
func openDataDir(ctx context.Context, path string, pid int) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("make data directory: %w: name another by --data", err)
	}
	if err := checkFormat(path); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w: name another by --data", err)
	}
	if err := acquire(ctx, path, lock); err != nil {
		_ = lock.Close()
		return nil, err
	}
	d := &dataDir{path, lock}
	if err := errors.Join(d.sign(pid), os.WriteFile(filepath.Join(path, "format"), []byte(format+"\n"), 0o644)); err != nil {
		d.release()
		return nil, fmt.Errorf("write to data directory: %w: name another by --data", err)
	}
	return d, nil
}

// checkFormat refuses a directory that isn't ours to write into.
func checkFormat(path string) error {
	b, err := os.ReadFile(filepath.Join(path, "format"))
	switch {
	case err == nil && strings.TrimSpace(string(b)) == format:
		return nil
	case err == nil:
		return fmt.Errorf("the data directory %s has format %.20q, and this version reads format %s: use the version that wrote it, or start on another --data", path, strings.TrimSpace(string(b)), format)
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("read data directory: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "lock" { // all that a start which was killed this early leaves
			return fmt.Errorf("%s holds files and is no data directory of reeve dev: name an empty or a new one by --data", path)
		}
	}
	return nil
}

// acquire takes the lock, and gives a predecessor that is on its way out the time to go.
func acquire(ctx context.Context, path string, lock *os.File) error {
	started := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock data directory %s: %w", path, err)
		}
		pid := holder(lock)
		limit := leaveDead
		if alive(pid) {
			limit = leaveAlive
		}
		if time.Since(started) > limit {
			return fmt.Errorf("the data directory %s is in use by a reeve dev with process id %d: end that one (kill %d), or start on another --data", path, pid, pid)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sign writes the visible process's number into the lock.
func (d *dataDir) sign(pid int) error {
	if err := d.lock.Truncate(0); err != nil {
		return err
	}
	_, err := d.lock.WriteAt([]byte(strconv.Itoa(pid)+"\n"), 0)
	return err
}

// holder is the number in the lock, 0 if there is none yet.
func holder(lock *os.File) int {
	b, _ := io.ReadAll(io.NewSectionReader(lock, 0, 32))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

func alive(pid int) bool {
	return pid > 0 && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
