package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Config says what a System stands on.
type Config struct {
	Brokers  []string
	Prefix   string   // of Reeve's topics and groups, and of the topics that the test makes
	Database string   // URL of the registry's Postgres
	Bin      string   // directory of the binaries, from Build
	Dir      string   // for logs; the agents are in Dir/agents
	Env      []string // for every service, in the form NAME=value
	// EnvOf is Env for single services, by name.
	EnvOf map[string][]string
	Key   string // that REST asks for. Defaults to none: REEVE_AUTH=off
	// Host is where services run. Defaults to this machine, as processes of the binaries in Bin.
	Host Host
}

// A Host runs services elsewhere than as processes of this machine.
type Host interface {
	// Launch starts a service under a node's name with variables of the form NAME=value, and doesn't wait until it is
	// ready. Agents' directories are below the directory agents of this machine.
	Launch(service, node, agents string, env []string) (*Process, error)
	// Marked counts the processes in all that it runs whose environment holds mark as NAME=value.
	Marked(mark string) (int, error)
}

// A System is one installation of Reeve.
type System struct {
	Config
	// URL is where the registry serves.
	URL string

	spawn *spawner

	mu        sync.Mutex
	addrs     map[string]string // service.node → address, kept over restarts
	processes []*Process
}

// New prepares a System; nothing runs yet.
func New(c Config) (*System, error) {
	if err := os.MkdirAll(filepath.Join(c.Dir, "agents"), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of agents: %w", err)
	}
	return &System{Config: c, spawn: newSpawner(), addrs: map[string]string{}}, nil
}

// Names are the names of the installation's topics and groups.
func (s *System) Names() topics.Names { return topics.Names{Prefix: s.Prefix} }

// AgentsDir is the directory that agents' directories are below.
func (s *System) AgentsDir() string { return filepath.Join(s.Dir, "agents") }

// Close kills what still runs and waits for it.
func (s *System) Close() error {
	s.mu.Lock()
	ps := s.processes
	s.mu.Unlock()
	var errs []error
	for _, p := range ps {
		errs = append(errs, p.End())
	}
	s.spawn.close()
	return errors.Join(errs...)
}

// Start starts a service under a node's name and waits until it is ready. Started again, it keeps its address.
func (s *System) Start(ctx context.Context, service, node string) (*Process, error) {
	p, err := s.Launch(service, node)
	if err != nil {
		return nil, err
	}
	if err := p.Ready(ctx); err != nil {
		return nil, errors.Join(err, p.End())
	}
	return p, nil
}

// Launch is Start without the wait.
func (s *System) Launch(service, node string) (*Process, error) {
	if s.Host != nil {
		return s.launchElsewhere(service, node)
	}
	addr, err := s.addr(service, node)
	if err != nil {
		return nil, err
	}
	if service == "registry" {
		s.URL = "http://" + addr
	}
	return s.LaunchAt(service, node, addr)
}

// LaunchAt is Launch on an address of the caller's, for a second process of the same node.
func (s *System) LaunchAt(service, node, addr string) (*Process, error) {
	cmd := exec.Command(filepath.Join(s.Bin, service))
	cmd.Dir = s.Dir
	cmd.Env = append(Environ(),
		"REEVE_KAFKA_BROKERS="+strings.Join(s.Brokers, ","),
		"REEVE_HTTP_ADDR="+addr,
		"REEVE_AGENTS_DIR="+s.AgentsDir(),
	)
	cmd.Env = append(cmd.Env, s.variables(service, node)...)
	return s.Run(cmd, service+"."+node, "http://"+addr)
}

// variables are a service's, wherever it runs.
func (s *System) variables(service, node string) []string {
	env := []string{"REEVE_TOPIC_PREFIX=" + s.Prefix, "REEVE_TOPIC_REPLICATION=1", "REEVE_NODE=" + node}
	if s.Key == "" {
		env = append(env, "REEVE_AUTH=off")
	}
	if service == "registry" {
		env = append(env, "REEVE_DATABASE_URL="+s.Database, "REEVE_ADMIN_KEY="+s.Key)
	}
	return slices.Concat(env, s.Env, s.EnvOf[service])
}

func (s *System) launchElsewhere(service, node string) (*Process, error) {
	p, err := s.Host.Launch(service, node, s.AgentsDir(), s.variables(service, node))
	if err != nil {
		return nil, err
	}
	if service == "registry" {
		s.URL = p.URL
	}
	s.keep(p)
	return p, nil
}

// keep remembers a process, so that Close ends it.
func (s *System) keep(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = append(s.processes, p)
}

// Marked counts the processes, of agents as a rule, whose environment holds mark as NAME=value.
func (s *System) Marked(mark string) (int, error) {
	if s.Host != nil {
		return s.Host.Marked(mark)
	}
	return len(Marked(mark)), nil
}

// Run starts any command as a process of the System on this machine. url is where it serves /readyz, "" if nowhere.
func (s *System) Run(cmd *exec.Cmd, name, url string) (*Process, error) {
	log, err := os.OpenFile(filepath.Join(s.Dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.spawn.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := NewProcess(name, url, cmd.Process.Pid, &local{cmd: cmd, log: log.Name()})
	s.keep(p)
	return p, nil
}

func (s *System) addr(service, node string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := service + "." + node
	if a, ok := s.addrs[key]; ok {
		return a, nil
	}
	free, err := testenv.FreeAddrs(1)
	if err != nil {
		return "", err
	}
	s.addrs[key] = free[0]
	return free[0], nil
}

// Environ is this process's environment without Reeve's variables.
func Environ() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "REEVE_") {
			env = append(env, kv)
		}
	}
	return env
}
