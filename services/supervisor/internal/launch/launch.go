// Package launch says how an agent's process is started: which program, where, with what environment. What is wrong with
// an agent on this machine is found here, before a process starts, and told as a typed error.
package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/reeve-run/reeve/internal/proc"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/stdio/adapter"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
	"github.com/reeve-run/reeve/services/supervisor/internal/process"
)

// Launcher prepares starts. Its fields don't change.
type Launcher struct {
	// AgentsDir is the directory that agents' directories are below.
	AgentsDir string
	Adapters  adapter.Files
	// Environ is the supervisor's own environment; an agent sees an allow-list of it.
	Environ []string
	// Mark is the supervisor's, without an instance.
	Mark proc.Mark
}

// allowed are the variables that an agent gets from the supervisor; everything else may be a secret. A trailing star
// stands for any ending.
var allowed = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "TERM", "SSL_CERT_FILE", "SSL_CERT_DIR"}

// Prepare says how to start an instance of an agent. The error is an *instance.StartError.
func (l Launcher) Prepare(a *spec.Agent, id string) (process.Command, error) {
	dir, err := l.directory(a.Dir)
	if err != nil {
		return process.Command{}, startup("the agent's directory %q: %v", a.Dir, err)
	}
	work, err := below(dir, a.Process.Cwd)
	if err != nil {
		return process.Command{}, startup("the working directory %q: %v", a.Process.Cwd, err)
	}
	env, err := l.environment(dir, a.Env)
	if err != nil {
		return process.Command{}, startup("%v", err)
	}
	c := process.Command{Dir: work, Env: env, Mark: l.Mark}
	c.Mark.Instance = a.Ref() + "/" + id
	if err := l.program(&c, a, dir); err != nil {
		return process.Command{}, err
	}
	return c, nil
}

func startup(format string, args ...any) error {
	return &instance.StartError{Cause: instance.Cause("AgentStartupError", fmt.Sprintf(format, args...))}
}

// directory resolves an agent's directory.
func (l Launcher) directory(dir string) (string, error) {
	root, err := filepath.Abs(l.AgentsDir)
	if err != nil {
		return "", err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return "", fmt.Errorf("the agents directory isn't there: %w", err)
	}
	return below(root, dir)
}

// below resolves a directory below another, also after symbolic links.
func below(root, dir string) (string, error) {
	path, err := filepath.EvalSymlinks(filepath.Join(root, dir))
	if err != nil {
		return "", missing(filepath.Join(root, dir), err)
	}
	if rel, err := filepath.Rel(root, path); err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", fmt.Errorf("it leads to %s, out of %s: put the files there or link within it", path, root)
	}
	if st, err := os.Stat(path); err != nil || !st.IsDir() {
		return "", fmt.Errorf("%s is no directory", path)
	}
	return path, nil
}

func missing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s isn't there", path)
	}
	return err
}

// program says what runs, by the agent's runtime.
func (l Launcher) program(c *process.Command, a *spec.Agent, dir string) error {
	module, function, _ := strings.Cut(a.Callback, ":")
	switch a.Runtime {
	case spec.Python:
		python, err := interpreter(dir, c.Env, "python3", ".venv/bin/python3", "venv/bin/python3")
		if err != nil {
			return err
		}
		c.Path, c.Args = python, l.Adapters.PythonArgs(dir, module, function, a.Config.Concurrency)
	case spec.Node:
		node, err := interpreter(dir, c.Env, "node")
		if err != nil {
			return err
		}
		c.Path, c.Args, c.Own = node, l.Adapters.NodeArgs(dir, module, function), true
	case spec.Command:
		path, err := command(a.Command[0], c.Dir, c.Env)
		if err != nil {
			return err
		}
		c.Path, c.Args = path, a.Command[1:]
	default:
		return startup("this version of the supervisor doesn't know the runtime %q", a.Runtime)
	}
	return nil
}

// interpreter finds an agent's interpreter: its own, else the one on the path. A script that stands for the interpreter (a
// version manager's shim) is asked for the real one, or every start would run it.
func interpreter(dir string, env []string, name string, own ...string) (string, error) {
	for _, o := range own {
		if path := filepath.Join(dir, o); executable(path) {
			return path, nil
		}
	}
	path, ok := lookUp(name, env)
	if !ok {
		return "", startup("%s isn't on the supervisor's PATH: install it, or run this agent's worker elsewhere", name)
	}
	if name == "python3" && script(path) {
		if real, err := ask(dir, env, path, "-c", "import sys; print(sys.executable)"); err == nil && executable(real) {
			return real, nil
		}
	}
	return path, nil
}

// askLimit bounds how long a shim may take.
const askLimit = 10 * time.Second

func ask(dir string, env []string, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, env, time.Second
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func script(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	var head [2]byte
	n, _ := f.Read(head[:])
	return n == 2 && string(head[:]) == "#!"
}

// command finds the program of runtime command: below the working directory where it has a slash, else on the path.
func command(name, dir string, env []string) (string, error) {
	if !strings.Contains(name, "/") {
		path, ok := lookUp(name, env)
		switch {
		case ok:
			return path, nil
		case executable(filepath.Join(dir, name)):
			return "", startup("the program %q isn't on the PATH; there is one in the working directory: write ./%s", name, name)
		}
		return "", startup("the program %q isn't on the PATH", name)
	}
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return "", startup("the program %q: %v", name, missing(path, err))
	case !executable(path):
		return "", startup("the program %s has the mode %s: make it an executable file (chmod +x)", path, st.Mode())
	}
	return path, nil
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// lookUp searches the PATH of an environment; what is relative in it doesn't count.
func lookUp(name string, env []string) (string, bool) {
	for _, dir := range filepath.SplitList(get(env, "PATH")) {
		if path := filepath.Join(dir, name); filepath.IsAbs(dir) && executable(path) {
			return path, true
		}
	}
	return "", false
}

func get(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// environment is the allow-list, then the .env file in the agent's directory, then the spec's.
func (l Launcher) environment(dir string, own map[string]string) ([]string, error) {
	vars := map[string]string{}
	for _, e := range l.Environ {
		if k, v, ok := strings.Cut(e, "="); ok && isAllowed(k) {
			vars[k] = v
		}
	}
	file := filepath.Join(dir, ".env")
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read environment file: %w", err)
	}
	if err := parseEnv(string(text), vars); err != nil {
		return nil, fmt.Errorf("the environment file %s: %w", file, err)
	}
	for k, v := range own {
		vars[k] = v
	}
	delete(vars, proc.MarkVariable)
	out := make([]string, 0, len(vars)+1)
	for k, v := range vars {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out, nil
}

func isAllowed(name string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		prefix, star := strings.CutSuffix(a, "*")
		return name == a || star && strings.HasPrefix(name, prefix)
	})
}

// parseEnv reads NAME=value lines: comments, an export before the name, single and double quotes around the value.
// Nothing is expanded.
func parseEnv(text string, into map[string]string) error {
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || name == "" || strings.ContainsAny(name, " \t\x00") || strings.Contains(value, "\x00") {
			return fmt.Errorf("line %d is no NAME=value", n+1)
		}
		into[name] = unquote(value)
	}
	return nil
}

func unquote(v string) string {
	if len(v) >= 2 && (v[0] == '"' || v[0] == '\'') {
		if end := strings.IndexByte(v[1:], v[0]); end >= 0 {
			return v[1 : 1+end]
		}
	}
	if i := strings.Index(v, " #"); i >= 0 {
		return strings.TrimSpace(v[:i])
	}
	return v
}
