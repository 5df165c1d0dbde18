package agentsfile

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/reeve-run/reeve/pkg/spec"
)

// defaultModule is the file that agent_dir with callback_function means.
const defaultModule = "callback"

// nodeExtensions are the files that Node loads, in the order in which they are looked for.
var nodeExtensions = []string{".js", ".mjs", ".cjs", ".ts"}

// agent reads one entry, fills in what it leaves out and checks the whole. It is nil where that can't be done;
// the token is where the agent stands.
func (d *decoder) agent(n ast.Node) (*Listed, *token.Token) {
	e := newEntry()
	e.start = n.GetToken()
	ps, ok := d.pairs("an agent", n)
	if !ok {
		return nil, e.start
	}
	if len(ps) > 0 {
		e.start = ps[0].token
	}
	e.broken = !d.mapping(e, "", "an agent", n, agentKeys())
	if !e.has("topic") && !e.broken {
		d.faults.at(e.start, "topic is missing: say which Kafka topic the agent listens to")
		e.broken = true
	}
	d.infer(e)
	d.check(e)
	if e.agent.Topic == "" {
		return nil, e.start
	}
	return &Listed{Agent: &e.agent, Terms: e.terms}, e.start
}

// infer fills in what the entry leaves out. In an entry where something couldn't be read, what follows from it
// isn't told: a misspelt callback isn't a missing one as well.
func (d *decoder) infer(e *entry) {
	a := &e.agent
	if !e.has("name") {
		a.Name = spec.DefaultName(a.Topic)
	}
	if !e.has("version") {
		a.Version = "1.0.0"
	}
	if a.Tags == nil {
		a.Tags = []string{}
	}
	inferPool(e)
	if e.has("runtime") && !d.knownRuntime(e) {
		e.broken = true
	}
	if !e.broken && !(d.inferDir(e) && d.inferRuntime(e)) {
		e.broken = true
	}
	a.Config = spec.NewConfig(a.Runtime)
	e.config(&a.Config)
	a.Process = spec.NewProcess()
	d.inferRestart(e)
}

func inferPool(e *entry) {
	p := &e.agent.Pool
	switch low, high := e.has("pool.min"), e.has("pool.max"); {
	case !low && !high:
		p.Min, p.Max = 1, 1
	case !low:
		p.Min = min(1, p.Max)
	case !high:
		p.Max = p.Min
	}
}

func (d *decoder) inferDir(e *entry) bool {
	if !e.has("agent_dir") {
		return true
	}
	if e.has("dir") {
		d.faults.at(e.at("agent_dir"), "agent_dir and dir say the same thing: keep dir")
		return false
	}
	e.agent.Dir = e.agentDir
	e.where["dir"] = e.where["agent_dir"]
	return true
}

// inferRestart combines restart_on_exit with restart_policy, which says more.
func (d *decoder) inferRestart(e *entry) {
	p := &e.agent.Process
	if e.restartOnExit != nil && !*e.restartOnExit {
		p.RestartPolicy = spec.RestartNever
	}
	e.process(p)
	if e.restartOnExit == nil || !e.has("process.restart_policy") {
		return
	}
	if never := p.RestartPolicy == spec.RestartNever; *e.restartOnExit == never {
		d.faults.at(e.at("process.restart_on_exit"), "process.restart_on_exit: %t contradicts restart_policy: %s: keep one of them",
			*e.restartOnExit, p.RestartPolicy)
	}
}

// inferRuntime settles runtime, callback and command.
func (d *decoder) inferRuntime(e *entry) bool {
	a := &e.agent
	calls := e.has("callback") || e.has("callback_module") || e.has("callback_function")
	switch {
	case e.has("args") && !e.has("command"):
		d.faults.at(e.at("args"), "args stand beside command, which is missing: name the program by command")
		return false
	case calls && e.has("command"):
		d.faults.at(e.at("command"), "an agent has a callback or a command, here are both: keep one")
		return false
	case !calls && !e.has("command"):
		d.faults.at(e.start, "the agent has neither callback nor command: write `callback: module:function`, or `command: [./program]`")
		return false
	case a.Runtime == spec.Command && calls:
		d.faults.at(e.at("runtime"), "runtime: command needs a command, here is a callback: give command, or runtime: python or node")
		return false
	case e.has("command") && a.Runtime != "" && a.Runtime != spec.Command:
		d.faults.at(e.at("runtime"), "runtime: %s needs a callback, here is a command: give callback, or runtime: command", a.Runtime)
		return false
	case e.has("command"):
		return d.inferCommand(e)
	}
	return d.inferCallback(e)
}

func (d *decoder) knownRuntime(e *entry) bool {
	known := []string{spec.Python, spec.Node, spec.Command}
	r := e.agent.Runtime
	switch {
	case slices.Contains(known, r):
		return true
	case r == "go":
		d.faults.at(e.at("runtime"), "runtime: go is not available in this version: build the program and use runtime: command")
	default:
		d.faults.at(e.at("runtime"), "the runtime %q is unknown%s: use python, node or command", r, meant(r, known))
	}
	return false
}

func (d *decoder) inferCommand(e *entry) bool {
	if len(e.command) > 1 && len(e.args) > 0 {
		d.faults.at(e.at("args"), "command is a list, so its arguments stand there: move args into it")
		return false
	}
	e.agent.Runtime = spec.Command
	e.agent.Command = append(slices.Clone(e.command), e.args...)
	return true
}

// inferCallback makes module:function of the forms that a callback is written in, and tells the runtime.
func (d *decoder) inferCallback(e *entry) bool {
	module, function, ok := d.splitCallback(e)
	if !ok {
		return false
	}
	if spec.Escapes(module) || spec.Escapes(e.agent.Dir) {
		// Nothing is looked for out there; the check tells.
		if e.agent.Runtime == "" {
			e.agent.Runtime = spec.Python
		}
		e.agent.Callback = module + ":" + function
		return true
	}
	runtime, ok := d.callbackRuntime(e, module)
	if !ok {
		return false
	}
	e.agent.Runtime = runtime
	if runtime == spec.Python {
		module = strings.TrimSuffix(module, ".py")
	}
	if function == "" {
		function = d.defaultFunction(e, module)
	}
	e.agent.Callback = module + ":" + function
	return true
}

// splitCallback takes the forms apart: callback: m:f; callback_module: m.f, m:f, or m with callback_function;
// callback_function alone, in the file callback.
func (d *decoder) splitCallback(e *entry) (module, function string, ok bool) {
	written, key := e.callback, "callback"
	if e.has("callback_module") {
		if e.has("callback") {
			d.faults.at(e.at("callback_module"), "callback and callback_module say the same thing: keep one")
			return "", "", false
		}
		written, key = e.callbackModule, "callback_module"
	}
	if !e.has(key) {
		return defaultModule, e.callbackFunction, true
	}
	module, function, parted := strings.Cut(written, ":")
	if dot := strings.LastIndex(module, "."); !parted && !e.has("callback_function") && dot > 0 && key == "callback_module" && extension(module) == "" {
		module, function, parted = module[:dot], module[dot+1:], true
	}
	switch {
	case module == "" || parted && function == "":
		d.faults.at(e.at(key), "%s: %q is no callback: write module:function", key, written)
		return "", "", false
	case parted && e.has("callback_function") && function != e.callbackFunction:
		d.faults.at(e.at("callback_function"), "%s and callback_function name two functions, %s and %s: keep one", key, function, e.callbackFunction)
		return "", "", false
	case !parted:
		function = e.callbackFunction
	}
	return module, function, true
}

// extension is the extension of a module that is written as a file, or "".
func extension(module string) string {
	x := path.Ext(module)
	if x == ".py" || slices.Contains(nodeExtensions, x) {
		return x
	}
	return ""
}

// callbackRuntime tells Python from Node: by what the entry says, by the module's extension, by the files there.
// Where no file is there yet it is Python, and the supervisor tells that the callback isn't there.
func (d *decoder) callbackRuntime(e *entry, module string) (string, bool) {
	if e.agent.Runtime != "" {
		return e.agent.Runtime, true
	}
	if x := extension(module); x != "" {
		if x == ".py" {
			return spec.Python, true
		}
		return spec.Node, true
	}
	python := d.exists(e, module, ".py") || d.exists(e, module, "/__init__.py")
	node := slices.ContainsFunc(nodeExtensions, func(x string) bool { return d.exists(e, module, x) })
	if python && node {
		d.faults.at(e.at("callback"), "the runtime of %s can't be told, files for both Python and Node are there: write runtime: python or runtime: node", module)
		return "", false
	}
	if node {
		return spec.Node, true
	}
	return spec.Python, true
}

func (d *decoder) exists(e *entry, module, extension string) bool {
	info, err := os.Stat(d.location(e, module) + extension)
	return err == nil && !info.IsDir()
}

// location is where a module of an entry is on this machine, without its extension. Dots in a module part packages.
func (d *decoder) location(e *entry, module string) string {
	return filepath.Join(d.options.AgentsDir, filepath.FromSlash(e.agent.Dir), filepath.FromSlash(strings.ReplaceAll(module, ".", "/")))
}

// defaultFunction is handle_request where the module has it, else handle.
func (d *decoder) defaultFunction(e *entry, module string) string {
	source := d.source(e, module)
	for _, f := range []string{"handle_request", "handle"} {
		if regexp.MustCompile(`\b` + f + `\b`).Match(source) {
			return f
		}
	}
	return "handle_request"
}

func (d *decoder) source(e *entry, module string) []byte {
	base := strings.TrimSuffix(module, extension(module))
	for _, x := range append([]string{".py", "/__init__.py"}, nodeExtensions...) {
		if b, err := os.ReadFile(d.location(e, base) + x); err == nil {
			return b
		}
	}
	return nil
}

// check runs the same check as the registry, so that its faults come with a line.
func (d *decoder) check(e *entry) {
	for _, f := range e.agent.Check(d.options.Tiers) {
		if e.broken && followsFromOthers(e, f.Field) {
			continue
		}
		d.faults.at(e.at(d.placeOf(e, f.Field)), "%s: %s", f.Field, f.Message)
	}
	d.checkFilter(e)
}

// placeOf is the key that a fault's field was written as.
func (d *decoder) placeOf(e *entry, field string) string {
	candidates := map[string][]string{
		"callback": {"callback", "callback_module", "callback_function"},
		"pool":     {"pool.max", "pool.min", "pool"},
	}[field]
	for _, c := range append(candidates, field) {
		if e.has(c) {
			return c
		}
	}
	return field
}

// followsFromOthers reports whether a field may be wrong only because another one couldn't be read.
func followsFromOthers(e *entry, field string) bool {
	switch field {
	case "runtime", "callback", "command":
		return true
	case "topic", "name":
		return !e.has(field)
	}
	return false
}
