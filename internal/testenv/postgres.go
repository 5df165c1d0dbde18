package testenv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
	_ "github.com/lib/pq" // the driver
)

// StartPostgres starts a Postgres by the first provider that can.
func StartPostgres(ctx context.Context, say Say) (*Server, error) {
	return first(ctx, say, "Postgres", "", []provider{externalPostgres(), installedPostgres(), embeddedPostgres()})
}

func externalPostgres() provider {
	return provider{
		name: "external",
		missing: func() string {
			if os.Getenv(EnvDatabaseURL) == "" {
				return EnvDatabaseURL + " isn't set"
			}
			return ""
		},
		start: func(context.Context, Say) (*Server, error) {
			return &Server{Address: os.Getenv(EnvDatabaseURL), About: "the Postgres of " + EnvDatabaseURL}, nil
		},
	}
}

func installedPostgres() provider {
	return provider{
		name: "installed",
		missing: func() string {
			if installedBinaries() == "" {
				return "no initdb and postgres on PATH or below /usr/lib/postgresql"
			}
			return ""
		},
		start: func(ctx context.Context, _ Say) (*Server, error) {
			return startPostgres(ctx, installedBinaries())
		},
	}
}

func embeddedPostgres() provider {
	return provider{
		name:    "embedded",
		missing: func() string { return "" },
		start: func(ctx context.Context, say Say) (*Server, error) {
			bin, err := downloadedBinaries(say)
			if err != nil {
				return nil, err
			}
			return startPostgres(ctx, bin)
		},
	}
}

// installedBinaries is the directory of an installed server's programs, "" if there is none. Distributions keep them off
// the PATH, and what is on it may be links into that directory.
func installedBinaries() string {
	var dirs []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin"} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(initdb); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, dir := range slices.Backward(dirs) { // the newest version last, and PATH before all
		if hasServer(dir) {
			return dir
		}
	}
	return ""
}

func hasServer(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// downloadedBinaries fetches a server's programs once. The library only knows how to start a server, and refuses to as
// root; so it is asked for one that can't start, after it has unpacked what it fetched.
func downloadedBinaries(say Say) (string, error) {
	dir := filepath.Join(cacheDir(), "postgres-"+string(embeddedpostgres.V17))
	bin := filepath.Join(dir, "bin")
	unlock, err := lock(filepath.Join(cacheDir(), "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if hasServer(bin) {
		return bin, nil
	}
	say("fetching Postgres %s (once)", embeddedpostgres.V17)
	addrs, err := FreeAddrs(1)
	if err != nil {
		return "", err
	}
	_, port, _ := net.SplitHostPort(addrs[0])
	number, _ := strconv.ParseUint(port, 10, 32)
	scratch, err := os.MkdirTemp("", "reeve-test-postgres-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	err = embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(embeddedpostgres.V17).Port(uint32(number)).Logger(io.Discard).Locale("none").
		CachePath(cacheDir()).BinariesPath(dir).RuntimePath(filepath.Join(scratch, "run")).DataPath(filepath.Join(scratch, "data"))).Start()
	if !hasServer(bin) {
		return "", fmt.Errorf("fetch Postgres: %w", err)
	}
	return bin, openPath(dir)
}

// openPath lets another user run what is below dir: a server doesn't run as root.
func openPath(dir string) error {
	if os.Getuid() != 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if info.Mode().Perm()&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}

// startPostgres makes a database cluster for throw-away data and serves it, trusting every local connection.
func startPostgres(ctx context.Context, bin string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	owner := unprivileged()
	dir, err := ownDir(owner)
	if err != nil {
		return nil, err
	}
	s, err := runPostgres(ctx, bin, dir, owner)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

func runPostgres(ctx context.Context, bin, dir string, owner *syscall.Credential) (*Server, error) {
	bin, err := reachable(bin, dir, owner)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = dir, &syscall.SysProcAttr{Credential: owner}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make database cluster: %w\n%s", err, out)
	}
	addrs, err := FreeAddrs(1)
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addrs[0])
	c, err := startChild(dir, "QUIT", owner, filepath.Join(bin, "postgres"), "-D", data, "-p", port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=300",
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "shared_buffers=64MB")
	if err != nil {
		return nil, err
	}
	url := "postgres://postgres@" + addrs[0] + "/postgres?sslmode=disable"
	if err := c.await(ctx, func(ctx context.Context) error { return pingPostgres(ctx, url) }); err != nil {
		return nil, err
	}
	version, _ := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output()
	return &Server{Address: url, About: firstLine(version), PID: c.pid(), stop: c.stop}, nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// unprivileged is who a server runs as where this process is root, which Postgres refuses: the system's nobody, or nil.
func unprivileged() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	const anybody = 65534
	id := &syscall.Credential{Uid: anybody, Gid: anybody}
	if u, err := user.Lookup("nobody"); err == nil {
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		id.Uid, id.Gid = uint32(uid), uint32(gid)
	}
	return id
}

// ownDir makes a directory that the owner can reach and write.
func ownDir(owner *syscall.Credential) (string, error) {
	base := ""
	if owner != nil {
		base = "/tmp" // TMPDIR may be below a directory that only root enters
	}
	dir, err := os.MkdirTemp(base, "reeve-test-postgres-")
	if err != nil || owner == nil {
		return dir, err
	}
	return dir, os.Chown(dir, int(owner.Uid), int(owner.Gid))
}

// reachable is bin, or a copy of its installation in dir where the owner may not enter it: root's cache directory is
// below a home that only root enters.
func reachable(bin, dir string, owner *syscall.Credential) (string, error) {
	if owner == nil {
		return bin, nil
	}
	try := exec.Command(filepath.Join(bin, "initdb"), "--version")
	try.Dir, try.SysProcAttr = dir, &syscall.SysProcAttr{Credential: owner}
	if try.Run() == nil {
		return bin, nil
	}
	to := filepath.Join(dir, "program")
	if err := os.CopyFS(to, os.DirFS(filepath.Dir(bin))); err != nil {
		return "", fmt.Errorf("copy Postgres to where an unprivileged user can run it: %w", err)
	}
	return filepath.Join(to, "bin"), errors.Join(openPath(to), give(to, owner))
}

// give makes dir and what is below it the owner's, so that he can remove it.
func give(dir string, owner *syscall.Credential) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	})
}

func pingPostgres(ctx context.Context, url string) error {
	db, err := sql.Open("postgres", url)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return db.PingContext(ctx)
}
