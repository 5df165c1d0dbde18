package sweep

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

// devService is `reeve dev`: broker, database and all services in one.
const devService = "dev"

// RunDev starts `reeve dev` with the agent, kills it as a whole c.Kills times, each time starting it again at once on the
// same data, and accounts for every task.
func RunDev(ctx context.Context, sys *harness.System, c Config) (*Report, error) {
	addrs, err := testenv.FreeAddrs(2)
	if err != nil {
		return nil, err
	}
	sys.URL, sys.Brokers = "http://"+addrs[0], addrs[1:]
	s := newSweep(sys, c)
	s.blows = devBlows(c)
	s.launch = func(string, int) (*harness.Process, error) { return s.launchDev(addrs[0], addrs[1]) }
	if err := s.place(); err != nil {
		return nil, err
	}
	file, err := json.Marshal(map[string]any{"agents": []any{s.entry()}}) // JSON is YAML
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(sys.AgentsDir(), "agents.yaml"), file, 0o644); err != nil {
		return nil, err
	}
	p, err := s.launch(devService, 0)
	if err != nil {
		return nil, err
	}
	s.running[devService] = []*harness.Process{p}
	if err := p.Ready(ctx); err != nil {
		return nil, err
	}
	return s.run(ctx)
}

// devBlows hit the visible process and the one below it in turn.
func devBlows(c Config) []Blow {
	var blows []Blow
	for _, b := range Plan(c.Seed, c.Kills, 0, 1) {
		if b.Service == "supervisor" { // the kinds and moments of one that has a guard
			b.Service = devService
			blows = append(blows, b)
		}
	}
	return blows
}

func (s *sweep) launchDev(listen, kafka string) (*harness.Process, error) {
	cmd := exec.Command(filepath.Join(s.sys.Bin, "reeve"), "dev", "--data", filepath.Join(s.sys.Dir, "data"),
		"--listen", listen, "--kafka-listen", kafka, "--agents-dir", s.sys.AgentsDir(), "-f", filepath.Join(s.sys.AgentsDir(), "agents.yaml"))
	cmd.Dir, cmd.Env = s.sys.Dir, harness.Environ()
	p, err := s.sys.Run(cmd, devService, "http://"+listen)
	if err != nil {
		return nil, fmt.Errorf("launch reeve dev: %w", err)
	}
	return p, nil
}
