package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	// startLimit covers the download of the embedded database on a machine that never had it.
	startLimit = 4 * time.Minute
	stopLimit  = 60 * time.Second
)

// devProcess is the running `reeve dev`.
type devProcess struct {
	cmd     *exec.Cmd
	data    string
	logPath string
	listen  string
	base    string // the URL of a registry that isn't its own
	brokers string
	prefix  string
	ownName bool          // the prefix is this run's alone, so its topics go with it
	ended   chan struct{} // closed when the process is gone; err is set then
	err     error
}

func (p *devProcess) url() string {
	if p.base != "" {
		return p.base
	}
	return "http://" + p.listen
}

// start runs `reeve dev` with a data directory of its own and waits until it is ready; an attached demo uses what is there.
func (d *demo) start(ctx context.Context) (*devProcess, error) {
	if d.attach {
		d.say("Using the Reeve at %s and the Kafka at %s", d.url, d.brokers)
		return &devProcess{base: d.url, brokers: d.brokers, prefix: d.prefix, logPath: "the services' logs"}, nil
	}
	p := &devProcess{brokers: d.brokers, prefix: d.prefix, ended: make(chan struct{})}
	if err := d.choose(ctx, p); err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp("", "reeve-demo-")
	if err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	p.data, p.logPath = data, filepath.Join(data, "dev.log")
	args := []string{"dev", "--data", filepath.Join(data, "dev"), "--listen", p.listen, "-f", filepath.Join(agentsDir, "agents.yaml")}
	if d.brokers != "" {
		args = append(args, "--brokers", d.brokers)
	} else {
		args = append(args, "--kafka-listen", p.brokers)
	}
	d.say("Starting reeve %s", strings.Join(args, " "))
	ready, err := p.launch(d.reeve, args, d.out)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(data))
	}
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case <-ready:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("reeve dev ended before it was ready (%s); the end of %s:\n%s", p.cmd.ProcessState, p.logPath, tail(p.logPath, 20))
	case <-limit.C:
		err = fmt.Errorf("reeve dev wasn't ready within %v; the end of %s:\n%s", startLimit, p.logPath, tail(p.logPath, 20))
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, p.stop())
}

// choose picks addresses and the topic prefix, and says where they aren't the usual ones.
func (d *demo) choose(ctx context.Context, p *devProcess) (err error) {
	if p.listen, err = d.freeAddress("127.0.0.1:8765"); err != nil {
		return err
	}
	if d.brokers == "" {
		p.brokers, err = d.freeAddress("127.0.0.1:9092")
		return err
	}
	d.say("Using the Kafka at %s", d.brokers)
	taken, err := hasTopic(ctx, d.brokers, topics.Names{Prefix: p.prefix}.Control())
	if err != nil {
		return err
	}
	if taken && p.prefix == "" {
		p.ownName = true
		p.prefix = "reeve-demo-" + time.Now().UTC().Format("20060102-150405")
		d.say("Topics of a Reeve installation are there already: the demo leaves them alone and names its own %s.*,\nwhich it deletes at its end", p.prefix)
	}
	return nil
}

// freeAddress is the usual address, or one with a free port if that is taken.
func (d *demo) freeAddress(usual string) (string, error) {
	if l, err := net.Listen("tcp", usual); err == nil {
		return usual, l.Close()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	d.say("%s is taken: using %s", usual, l.Addr())
	return l.Addr().String(), l.Close()
}

// launch starts the process. Until it is ready its output is shown; all of it goes into the log.
func (p *devProcess) launch(binary string, args []string, out io.Writer) (ready <-chan struct{}, err error) {
	log, err := os.Create(p.logPath)
	if err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Env = p.environ()
	// Its own process group: a Ctrl-C is for the demo, which then ends it in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w: make build makes it", binary, err), log.Close())
	}
	s := &startUp{log: log, out: out, ready: make(chan struct{})}
	var readers sync.WaitGroup
	readers.Go(func() { s.read(stdout) })
	readers.Go(func() { s.read(stderr) })
	go func() { // ends with the process, which stop waits for
		readers.Wait()
		p.err = p.cmd.Wait()
		log.Close()
		close(p.ended)
	}()
	return s.ready, nil
}

// environ is the demo's own environment for reeve and its commands.
func (p *devProcess) environ() []string {
	env := append(os.Environ(), "REEVE_URL="+p.url())
	if p.prefix != "" {
		env = append(env, "REEVE_TOPIC_PREFIX="+p.prefix)
	}
	return env
}

// startUp takes the output of a process that starts up, line by line.
type startUp struct {
	mu      sync.Mutex
	log     io.Writer
	out     io.Writer
	ready   chan struct{}
	isReady bool
}

func (s *startUp) read(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			s.line(line)
		}
		if err != nil {
			return
		}
	}
}

func (s *startUp) line(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.WriteString(s.log, line) // a full disk costs the log, nothing else
	if s.isReady {
		return
	}
	if !routine(line) {
		fmt.Fprint(s.out, "  | ", strings.TrimRight(line, "\n"), "\n")
	}
	if strings.HasPrefix(strings.TrimSpace(line), "ready") {
		s.isReady = true
		close(s.ready)
	}
}

// routine says whether a line is of the log and nothing that a person must act on.
func routine(line string) bool {
	return strings.HasPrefix(line, "time=") && (strings.Contains(line, " level=INFO ") || strings.Contains(line, " level=DEBUG "))
}

// stop ends the process and waits for it.
func (p *devProcess) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop reeve dev: %w", err)
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-p.ended:
	case <-limit.C:
		err := p.cmd.Process.Kill()
		<-p.ended
		return errors.Join(fmt.Errorf("reeve dev didn't end within %v and was killed: see %s", stopLimit, p.logPath), err)
	}
	if p.err != nil {
		return fmt.Errorf("reeve dev ended badly: %w: see %s", p.err, p.logPath)
	}
	return nil
}

// cli runs a reeve command against the running registry. Its output goes to out; nil shows it only where it fails.
func (p *devProcess) cli(ctx context.Context, binary string, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = p.environ()
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if out != nil {
		cmd.Stdout = out
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run reeve %s: %w\n%s", strings.Join(args, " "), err, said.String())
	}
	return nil
}

// tail returns the last lines of a file.
func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
