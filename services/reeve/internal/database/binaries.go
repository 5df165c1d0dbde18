package database

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// oldest is the oldest major version of Postgres that the registry's schema is tested with.
const oldest = 14

// fetched is the version that is fetched where none is installed.
const fetched = embeddedpostgres.V17

// installation is a server's programs.
type installation struct {
	bin   string
	major int
}

func (i installation) program(name string) string { return filepath.Join(i.bin, name) }

// find gives the installation to use for a data directory that was made by the major version made; 0 is a new one.
func find(ctx context.Context, made int, say func(format string, args ...any)) (installation, error) {
	found := installed(ctx)
	if err := ctx.Err(); err != nil { // then nothing was found for another reason
		return installation{}, err
	}
	for _, i := range found {
		if made == 0 || i.major == made {
			return i, nil
		}
	}
	if made != 0 && made != majorOf(string(fetched)) {
		return installation{}, fmt.Errorf("the data was written by Postgres %d, and here is %s: install Postgres %d, or start on another --data", made, list(found), made)
	}
	return fetch(say)
}

func list(found []installation) string {
	if len(found) == 0 {
		return "none"
	}
	words := make([]string, len(found))
	for i, f := range found {
		words[i] = strconv.Itoa(f.major)
	}
	return strings.Join(words, ", ")
}

// installed are the usable servers of this machine, the newest first. Distributions keep them off the PATH.
func installed(ctx context.Context) []installation {
	var dirs []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin"} {
		matches, _ := filepath.Glob(pattern) // the patterns are well-formed
		dirs = append(dirs, matches...)
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	var found []installation
	for _, dir := range dirs {
		if i, ok := inspect(ctx, dir); ok && i.major >= oldest && !slices.Contains(found, i) {
			found = append(found, i)
		}
	}
	slices.SortStableFunc(found, func(a, b installation) int { return cmp.Compare(b.major, a.major) })
	return found
}

// inspect reports whether a directory has a server's programs, and of which version.
func inspect(ctx context.Context, dir string) (installation, bool) {
	i := installation{bin: dir}
	if _, err := exec.LookPath(i.program("initdb")); err != nil {
		return i, false
	}
	out, err := exec.CommandContext(ctx, i.program("postgres"), "--version").Output()
	if err != nil {
		return i, false
	}
	i.major = majorOf(string(out))
	return i, i.major > 0
}

var number = regexp.MustCompile(`\d+`)

// majorOf is the first number in a version's text.
func majorOf(version string) int {
	n, _ := strconv.Atoi(number.FindString(version))
	return n
}

// fetch downloads a server into a cache directory, once. The library only starts servers, which fails as root and isn't
// wanted here; so it is asked for one of a locale that doesn't exist, which it refuses after it has unpacked the programs.
func fetch(say func(format string, args ...any)) (installation, error) {
	cache, err := cacheDir()
	if err != nil {
		return installation{}, fmt.Errorf("find a place for Postgres: %w", err)
	}
	dir := filepath.Join(cache, "postgres-"+string(fetched))
	i := installation{bin: filepath.Join(dir, "bin"), major: majorOf(string(fetched))}
	if _, err := exec.LookPath(i.program("postgres")); err == nil {
		return i, nil
	}
	scratch, err := os.MkdirTemp("", "reeve-postgres-")
	if err != nil {
		return installation{}, fmt.Errorf("fetch Postgres: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	port, err := freePort()
	if err != nil {
		return installation{}, fmt.Errorf("fetch Postgres: %w", err)
	}
	say("fetching Postgres %s into %s (about 25 MB, once)", fetched, cache)
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return installation{}, fmt.Errorf("fetch Postgres: %w", err)
	}
	err = embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().Version(fetched).Port(port).Logger(io.Discard).Locale("none").
		CachePath(cache).BinariesPath(part).RuntimePath(filepath.Join(scratch, "run")).DataPath(filepath.Join(scratch, "data"))).Start()
	if _, missing := exec.LookPath(filepath.Join(part, "bin", "postgres")); missing != nil {
		return installation{}, fmt.Errorf("fetch Postgres: %w: install Postgres %d or newer, or name a database by --database-url", err, oldest)
	}
	if err := os.Rename(part, dir); err != nil {
		return installation{}, fmt.Errorf("fetch Postgres: %w", err)
	}
	return i, nil
}

// cacheDir is the user's cache; root's only where others may enter it, since Postgres then runs as another user, and its
// programs check by access(2), for which a capability counts nothing.
func cacheDir() (string, error) {
	const system = "/var/cache"
	cache, err := os.UserCacheDir()
	if os.Geteuid() == 0 && (err != nil || !open(filepath.Join(cache, "reeve"))) {
		cache, err = system, nil
	}
	return filepath.Join(cache, "reeve"), err
}

// freePort is one that the library finds free, which it insists on.
func freePort() (uint32, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return uint32(l.Addr().(*net.TCPAddr).Port), nil
}
