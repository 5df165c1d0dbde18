package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

// The hello world of the README is a module of its own, outside of this repository's workspace, as a user's is. It builds,
// its test passes, and it works.
func TestTheGoHelloOfTheReadmeWorksAsAUsersModule(t *testing.T) {
	t.Parallel()
	root, err := harness.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := helloModule(t, root)
	for name, limit := range map[string]int{"main.go": 25, "main_test.go": 15} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); n > limit {
			t.Errorf("%s has %d lines, more than %d", name, n, limit)
		}
		if !strings.Contains(string(readme), "```go\n"+string(text)+"```\n") {
			t.Errorf("the README doesn't show %s as it is", name)
		}
	}
	goTool(t, dir, "vet", "./...")
	goTool(t, dir, "test", "./...")
	hello := filepath.Join(t.TempDir(), "hello")
	goTool(t, dir, "build", "-o", hello, ".")

	sys := system(t, testenv.Kfake(t), testenv.Unique()) // a broker of its own: the topic's name is the program's
	if err := harness.CreateTopic(t.Context(), sys.Brokers, "orders", 2, nil); err != nil {
		t.Fatal(err)
	}
	start(t, sys, "registry.r0", "dispatcher.d0")
	p := runProgram(t, sys, []string{hello}, "hello.h0")
	var task struct {
		Status string
		Result map[string]int
	}
	awaitTask(t, sys, "orders/hello", sendTo(t, sys, "orders", `{"id": 17, "amount": 3}`), &task, func() bool { return task.Status == "completed" })
	if task.Result["accepted"] != 17 || task.Result["attempt"] != 1 {
		t.Errorf("%+v", task)
	}
	awaitTask(t, sys, "orders/hello", sendTo(t, sys, "orders", `{"id": 18, "amount": -1}`), &task, func() bool { return task.Status == "dead_lettered" })
	stop(t, p)
}

// helloModule copies the module to where no workspace is above it.
func helloModule(t *testing.T, root string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "deployments", "examples", "go-hello"))); err != nil {
		t.Fatal(err)
	}
	goTool(t, dir, "mod", "edit", "-replace", "github.com/reeve-run/reeve/pkg="+filepath.Join(root, "pkg"))
	return dir
}

func goTool(t *testing.T, dir string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(harness.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s\nwhere pkg has other dependencies now: make fix", strings.Join(args, " "), err, out)
	}
}

// runProgram runs a program of the Go SDK; its name is program.node.
func runProgram(t *testing.T, sys *harness.System, command []string, name string) *harness.Process {
	t.Helper()
	_, node, _ := strings.Cut(name, ".")
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(harness.Environ(), "REEVE_KAFKA_BROKERS="+strings.Join(sys.Brokers, ","), "REEVE_TOPIC_PREFIX="+sys.Prefix, "REEVE_TOPIC_REPLICATION=1",
		"REEVE_URL="+sys.URL, "REEVE_NODE="+node)
	p, err := sys.Run(cmd, name, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s:\n%s", p.Name, p.Log())
		}
	})
	return p
}

// sendTo publishes one value without a key and gives its place, partition/offset.
func sendTo(t *testing.T, sys *harness.System, topic, value string) string {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r, err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value)}).First()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d/%d", r.Partition, r.Offset)
}

// awaitTask reads a task until it is as it should be.
func awaitTask(t *testing.T, sys *harness.System, agent, place string, into any, ok func() bool) {
	t.Helper()
	eventually(t, time.Minute, func() string {
		if err := sys.Call(t.Context(), http.MethodGet, "/v1/tasks/"+agent+"/"+place, nil, into); err != nil {
			return err.Error()
		}
		if !ok() {
			b, _ := json.Marshal(into)
			return string(b)
		}
		return ""
	})
}
