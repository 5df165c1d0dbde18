package database

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// owner is the user that Postgres runs as; nil is this process's own.
type owner struct{ uid, gid int }

// choose takes the system's user for Postgres, else nobody, where this process is root.
func choose() *owner {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, err1 := strconv.Atoi(u.Uid)
			gid, err2 := strconv.Atoi(u.Gid)
			if errors.Join(err1, err2) == nil {
				return &owner{uid, gid}
			}
		}
	}
	return &owner{65534, 65534}
}

// take makes the owner own everything below a path.
func (o *owner) take(path string) error {
	if o == nil {
		return nil
	}
	err := filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(p, o.uid, o.gid)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a process of a killed server's, on its way out, removes its files
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("give %s to the user %d that Postgres runs as: %w", path, o.uid, err)
	}
	return nil
}

// command is a program to be started as the owner. It dies with this process, by a signal on which Postgres ends at
// once. Where one of the paths leads through a directory that the owner may not enter, the program gets the capability
// to pass. That takes effect with an exec, so a shell's comes first, which is reached in any case.
func (o *owner) command(paths []string, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if o == nil {
		return cmd
	}
	if slices.ContainsFunc(paths, func(p string) bool { return !open(p) }) {
		cmd = exec.Command("/bin/sh", append([]string{"-c", `exec "$0" "$@"`, program}, args...)...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT, AmbientCaps: []uintptr{unix.CAP_DAC_OVERRIDE}}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}
	return cmd
}

// open reports whether everybody may enter the directories that lead to a path.
func open(path string) bool {
	for dir := filepath.Dir(path); ; {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir {
			return true
		}
		dir = up
	}
}
