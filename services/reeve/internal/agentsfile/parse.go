package agentsfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/reeve/internal/admission"
)

// maxSize is far above any list of agents that a person keeps, and far below what would exhaust a parser.
const maxSize = 8 << 20

// Options is what the reader of a file knows beyond it.
type Options struct {
	// AgentsDir is where the agents' directories are, to tell Python from Node by the files that are there.
	// Defaults to the folder of the file.
	AgentsDir string
	// Tiers are the installation's retry tiers. Where they aren't known (nil) the registry checks retry_delays.
	Tiers []time.Duration
}

// Listed is an agent of a file with the conditions under which it is registered.
type Listed struct {
	Agent *spec.Agent
	Terms admission.Terms
	// Place is where the entry begins, as FILE:LINE.
	Place string
}

// Read reads and checks a file. An error is a Faults unless the file can't be read.
func Read(path string, o Options) ([]Listed, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, errors.Unwrap(err))
	}
	if o.AgentsDir == "" {
		o.AgentsDir = filepath.Dir(path)
	}
	return Parse(path, data, o)
}

// Parse checks the content of a file; name is how faults call it. An error is always a Faults.
func Parse(name string, data []byte, o Options) ([]Listed, error) {
	d := &decoder{faults: &collector{file: name}, options: o}
	root := d.root(data)
	if root == nil {
		return nil, d.faults.err()
	}
	agents := d.file(root)
	if err := d.faults.err(); err != nil {
		return nil, err
	}
	return agents, nil
}

// root is the file's one document, or nil with a fault.
func (d *decoder) root(data []byte) ast.Node {
	switch {
	case len(data) > maxSize:
		d.faults.at(nil, "has %d bytes, at most %d are read: split the list", len(data), maxSize)
		return nil
	case !utf8.Valid(data):
		d.faults.at(nil, "is no UTF-8 text: save it as UTF-8")
		return nil
	}
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		d.malformed(err)
		return nil
	}
	var root ast.Node
	for _, doc := range f.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.CommentGroupType:
		case root != nil:
			d.faults.at(doc.GetToken(), "a second document starts here: keep one list of agents in a file")
			return nil
		default:
			root = doc.Body
		}
	}
	if root == nil {
		d.faults.at(nil, "is empty: write `agents:` and the list, or `agents: []` for none")
	}
	return root
}

func (d *decoder) malformed(err error) {
	var y yaml.Error
	if errors.As(err, &y) {
		d.faults.at(y.GetToken(), "is no valid YAML: %s: correct the line, often it is the indentation or a missing quote", y.GetMessage())
		return
	}
	d.faults.at(nil, "is no valid YAML: %v", err)
}

// file reads the top level.
func (d *decoder) file(root ast.Node) []Listed {
	ps, ok := d.pairs("the file", root)
	if !ok {
		return nil
	}
	var list ast.Node
	for _, p := range ps {
		if p.key != "agents" {
			d.faults.at(p.token, "%s is no key of the file: its only one is agents", p.key)
			continue
		}
		list = p.value
	}
	if list == nil {
		if len(d.faults.faults) == 0 {
			d.faults.at(root.GetToken(), "the key agents is missing: write `agents:` and the list, or `agents: []` for none")
		}
		return nil
	}
	nodes, ok := d.items("agents", list)
	if !ok {
		return nil
	}
	agents := make([]Listed, 0, len(nodes))
	seen := map[string]*token.Token{}
	for _, n := range nodes {
		a, at := d.agent(n)
		if a == nil {
			continue
		}
		ref := a.Agent.Ref()
		if first, twice := seen[ref]; twice {
			d.faults.at(at, "the agent %s is listed twice, first on line %d: give one of them another name", ref, first.Position.Line)
			continue
		}
		seen[ref] = at
		a.Place = fmt.Sprintf("%s:%d", d.faults.file, at.Position.Line)
		agents = append(agents, *a)
	}
	return agents
}
