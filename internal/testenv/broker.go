package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Broker is an Apache Kafka that one test has for itself, to do to it what happens to brokers. It may be stopped, killed
// and started again on its data, and be cut off from whoever reaches it through one of its Gates. Its methods are for one
// goroutine.
type Broker struct {
	// Address is for the test itself; nothing cuts it off.
	Address string
	// About says for people what it is.
	About string
	// Gates are further ways to it. A client that comes through one stays with it.
	Gates []*Gate

	dir, jars, config string
	keeper            *child // of dir; the broker's process is another, so that it can be ended alone
	process           *child // nil while it is down
}

// OwnBroker is an Apache Kafka of the test's own, with so many gates. Where this machine can't run one, the test is skipped.
func OwnBroker(t testing.TB, gates int) *Broker {
	t.Helper()
	if why := noApacheKafka(); why != "" {
		t.Skip("a broker that can be killed is an Apache Kafka: " + why)
	}
	b, err := StartBroker(context.Background(), stderr, gates)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Errorf("stop the test's broker: %v", err)
		}
	})
	return b
}

// StartBroker starts a Broker with so many gates.
func StartBroker(ctx context.Context, say Say, gates int) (*Broker, error) {
	if m := apacheKafka(light).missing(); m != "" {
		return nil, errors.New("start a broker: " + m)
	}
	jars, err := kafkaJars(ctx, say)
	if err != nil {
		return nil, err
	}
	b := &Broker{jars: jars, About: "Apache Kafka " + kafkaVersion(jars)}
	if b.dir, err = os.MkdirTemp("", "reeve-test-broker-"); err != nil {
		return nil, err
	}
	if b.keeper, err = startChild(b.dir, "KILL", nil, "tail", "-f", "/dev/null"); err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.dir))
	}
	if err := b.prepare(ctx, gates); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	if err := b.Start(ctx); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

// prepare finds addresses, opens the gates and formats the storage.
func (b *Broker) prepare(ctx context.Context, gates int) error {
	addrs, err := FreeAddrs(2 + gates)
	if err != nil {
		return err
	}
	b.Address = addrs[0]
	listeners, advertised, protocols := "", "", ""
	for i, addr := range addrs[2:] {
		g, err := newGate(addr)
		if err != nil {
			return err
		}
		b.Gates = append(b.Gates, g)
		listeners += fmt.Sprintf(",GATE%d://%s", i, addr)
		advertised += fmt.Sprintf(",GATE%d://%s", i, g.Address)
		protocols += fmt.Sprintf(",GATE%d:PLAINTEXT", i)
	}
	configuration := strings.Join([]string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.voters=1@" + addrs[1],
		"listeners=PLAINTEXT://" + addrs[0] + ",CONTROLLER://" + addrs[1] + listeners,
		"advertised.listeners=PLAINTEXT://" + addrs[0] + advertised,
		"controller.listener.names=CONTROLLER",
		"inter.broker.listener.name=PLAINTEXT",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT" + protocols,
		commonSettings(b.dir),
	}, "\n")
	b.config, err = formatKafka(ctx, b.dir, b.jars, configuration)
	return err
}

// Start starts it after a Kill, on its data, and waits until it answers.
func (b *Broker) Start(ctx context.Context) error {
	dir := filepath.Join(b.dir, "process")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	c, err := serveKafka(ctx, dir, b.jars, light, b.Address, b.config)
	if err != nil {
		return err
	}
	b.process = c
	return nil
}

// Kill ends its process by SIGKILL. What it had written is there for the next Start.
func (b *Broker) Kill() error {
	c := b.process
	b.process = nil
	return c.stop()
}

// Freeze stops its process for a while, as when its machine is paused, and lets it go on.
func (b *Broker) Freeze(ctx context.Context, d time.Duration) error {
	pid := b.process.pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("freeze the broker: %w", err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	return errors.Join(ctx.Err(), syscall.Kill(pid, syscall.SIGCONT))
}

// Stop ends it for good and removes its data.
func (b *Broker) Stop() error {
	var err error
	if b.process != nil {
		err = b.Kill()
	}
	for _, g := range b.Gates {
		g.close()
	}
	return errors.Join(err, b.keeper.stop())
}
