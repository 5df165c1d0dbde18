package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/pkg/spec"
)

// oldestPostgres is the first major version that Reeve's SQL is for.
const oldestPostgres = 14

// Database looks at the registry's Postgres.
func (e *Examination) Database(ctx context.Context) {
	if e.Config.DatabaseURL == "" {
		e.skip("postgres", "REEVE_DATABASE_URL isn't set here")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	db, err := postgres.Open(ctx, e.Config.DatabaseURL, postgres.Options{MaxConns: 1, Patience: time.Second})
	if err != nil {
		e.fail("postgres", "", "%v", err) // it says what to do itself
		return
	}
	defer func() { _ = db.Close() }() // it only reads
	var number int
	if err := db.GetContext(ctx, &number, `SELECT current_setting('server_version_num')::int`); err != nil {
		e.fail("postgres", "", "ask its version: %v", postgres.Plain(err))
		return
	}
	if number/10000 < oldestPostgres {
		e.fail("postgres", fmt.Sprintf("run Postgres %d or later", oldestPostgres), "it has version %d.%d", number/10000, number%10000)
		return
	}
	var may bool
	if err := db.GetContext(ctx, &may, `SELECT has_schema_privilege(current_schema(), 'CREATE')`); err != nil || !may {
		e.fail("postgres", "GRANT CREATE ON SCHEMA … TO the registry's role", "version %d.%d, and the role may not create tables in the schema", number/10000, number%10000)
		return
	}
	e.ok("postgres", "version %d.%d, and the role may create tables", number/10000, number%10000)
}

// Agents looks at the directory of the agents, and for their interpreters. Without a directory it isn't known here where
// the agents are.
func (e *Examination) Agents(dir string) {
	if dir == "" {
		e.skip("agents directory", "REEVE_AGENTS_DIR isn't set here")
	} else {
		e.directory(dir)
	}
	e.interpreter(spec.Python, "python3", "--version")
	e.interpreter(spec.Node, "node", "--version")
}

// directory looks at the agents' directory, and for that of each agent.
func (e *Examination) directory(dir string) {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		e.fail("agents directory", "create it, or give another in REEVE_AGENTS_DIR", "%v", err)
		return
	}
	e.ok("agents directory", "%s, %d entries", dir, len(entries))
	for _, a := range e.Installation.Agents {
		if a.Dir == "" {
			continue
		}
		if st, err := os.Stat(filepath.Join(dir, a.Dir)); err != nil || !st.IsDir() {
			e.fail("agent "+a.Ref(), "put it there, or correct the agent's dir or REEVE_AGENTS_DIR", "its directory %s isn't there", filepath.Join(dir, a.Dir))
		}
	}
}

// interpreter looks for the program that runs agents of a runtime; it is needed only where there are such agents.
func (e *Examination) interpreter(runtime, program string, version ...string) {
	needed := ""
	for _, a := range e.Installation.Agents {
		if a.Runtime == runtime {
			needed = a.Ref()
		}
	}
	path, err := exec.LookPath(program)
	if err != nil {
		if needed != "" {
			e.fail(program, "install it, or run this agent's supervisor elsewhere", "it isn't on PATH, and %s needs it", needed)
			return
		}
		e.warn(program, "install it where "+runtime+" agents are to run", "it isn't on PATH; no agent that is known here needs it")
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, version...).CombinedOutput()
	if err != nil {
		e.fail(program, "mend it: the supervisor starts agents by it", "%s doesn't run: %v", path, err)
		return
	}
	e.ok(program, "%s, %s", path, strings.TrimSpace(string(out)))
}
