// Package adapter has the programs that run a Python or a Node function as an agent: single files that need nothing but
// their interpreter's own library. They stand in the binary and are written to disk when they are needed.
package adapter

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

//go:embed adapter.py
var python []byte

//go:embed adapter.mjs
var node []byte

// Descriptors of the protocol in the Node adapter: Node can't duplicate descriptors, so its supervisor gives the
// protocol two of its own.
const (
	NodeIn  = 3
	NodeOut = 4
)

// Files are the adapters on disk.
type Files struct {
	Python string
	Node   string
}

// Install writes the adapters below dir, each under a name made of its content, so that processes of several versions
// don't disturb each other, and says where they are.
func Install(dir string) (Files, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Files{}, fmt.Errorf("install adapters: %w", err)
	}
	py, err := write(dir, "agent-%s.py", python)
	if err != nil {
		return Files{}, err
	}
	js, err := write(dir, "agent-%s.mjs", node)
	if err != nil {
		return Files{}, err
	}
	return Files{Python: py, Node: js}, nil
}

func write(dir, pattern string, content []byte) (string, error) {
	sum := sha256.Sum256(content)
	path := filepath.Join(dir, fmt.Sprintf(pattern, hex.EncodeToString(sum[:6])))
	if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
		return path, nil
	}
	tmp, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return "", fmt.Errorf("install adapter: %w", err)
	}
	_, err = tmp.Write(content)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return "", fmt.Errorf("install adapter: %w", err)
	}
	return path, nil
}

// PythonArgs are the arguments behind the interpreter.
func (f Files) PythonArgs(dir, module, function string, concurrency int) []string {
	return []string{f.Python, "--dir", dir, "--module", module, "--function", function, "--concurrency", strconv.Itoa(concurrency)}
}

// NodeArgs are the arguments behind the interpreter. The protocol is expected on NodeIn and NodeOut.
func (f Files) NodeArgs(dir, module, function string) []string {
	return []string{f.Node, "--dir", dir, "--module", module, "--function", function, "--in", strconv.Itoa(NodeIn), "--out", strconv.Itoa(NodeOut)}
}
