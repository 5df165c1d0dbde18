package testenv

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// cleanLimit is how long a test may take to remove what it made.
const cleanLimit = 30 * time.Second

// servers are this process's own, started on first use. They end with the process.
type servers struct {
	kafka, postgres func() (*Server, error)
	secured         func() (*Secured, error)
	fake            *Server // kafka's, where it runs in this process
}

// shared gives the process's servers. It is a function with a memory, since tests have no other place to share one.
var shared = sync.OnceValue(func() *servers {
	all := &servers{
		postgres: sync.OnceValues(func() (*Server, error) { return announce(StartPostgres(context.Background(), stderr)) }),
		secured:  sync.OnceValues(func() (*Secured, error) { return StartSecuredKafka(context.Background(), stderr) }),
	}
	all.kafka = sync.OnceValues(func() (*Server, error) {
		s, err := announce(StartKafka(context.Background(), stderr))
		if err == nil && strings.HasPrefix(s.About, "kfake") {
			all.fake = s
		}
		return s, err
	})
	return all
})

// Main is a package's tests as goleak.VerifyTestMain takes them. Once they have run it ends the kfake that they shared, if
// any, whose goroutines would be taken for theirs.
type Main struct{ *testing.M }

// Run runs the tests, and gives their exit code.
func (m Main) Run() int {
	code := m.M.Run()
	if fake := shared().fake; fake != nil {
		_ = fake.Stop() // its data is in memory
	}
	return code
}

func stderr(format string, args ...any) { fmt.Fprintf(os.Stderr, "testenv: "+format+"\n", args...) }

func announce(s *Server, err error) (*Server, error) {
	if err == nil {
		stderr("using %s", s.About)
	}
	return s, err
}

// Kafka is the Kafka that this process's tests share.
func Kafka(t testing.TB) *Server {
	t.Helper()
	s, err := shared().kafka()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Brokers are the addresses of the Kafka that this process's tests share.
func Brokers(t testing.TB) []string {
	t.Helper()
	return strings.Split(Kafka(t).Address, ",")
}

// Kfake is a kfake of the test's own, which ends with it.
func Kfake(t testing.TB) *Server {
	t.Helper()
	s, err := StartKfake(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	return s
}

// Prefix is a name of the test's own. Every topic and group on the shared Kafka that begins with it is removed when the
// test ends.
func Prefix(t testing.TB) string {
	t.Helper()
	brokers := Brokers(t)
	prefix := Unique()
	t.Cleanup(func() {
		if err := RemovePrefix(brokers, prefix); err != nil {
			t.Logf("remove what the test made on Kafka: %v", err)
		}
	})
	return prefix
}

// Unique is a name that nothing else has, fit for topics, groups and schemas.
func Unique() string {
	b := make([]byte, 5)
	_, _ = rand.Read(b) // it never fails
	return "t" + hex.EncodeToString(b)
}

// RemovePrefix removes all topics and groups whose names begin with prefix.
func RemovePrefix(brokers []string, prefix string) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanLimit)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	listed, err := adm.ListGroups(ctx)
	if err != nil {
		return fmt.Errorf("list groups: %w", err)
	}
	var groups []string
	for _, g := range listed.Groups() {
		if strings.HasPrefix(g, prefix) {
			groups = append(groups, g)
		}
	}
	if len(groups) > 0 {
		// One that still has members can't be deleted; it goes when the broker's retention says so.
		if _, err := adm.DeleteGroups(ctx, groups...); err != nil {
			return fmt.Errorf("delete groups: %w", err)
		}
	}
	details, err := adm.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	var topics []string
	for _, name := range details.Names() {
		if strings.HasPrefix(name, prefix) {
			topics = append(topics, name)
		}
	}
	if len(topics) == 0 {
		return nil
	}
	if _, err := adm.DeleteTopics(ctx, topics...); err != nil {
		return fmt.Errorf("delete topics: %w", err)
	}
	return nil
}

// Schema is the URL of the shared Postgres with a schema of the test's own on its search path. It is removed when the
// test ends.
func Schema(t testing.TB) string {
	t.Helper()
	s, err := shared().postgres()
	if err != nil {
		t.Fatal(err)
	}
	dsn, drop, err := NewSchema(t.Context(), s.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := drop(); err != nil {
			t.Logf("remove the test's schema: %v", err)
		}
	})
	return dsn
}

// NewSchema makes a schema and gives the URL with it on the search path, and what removes it.
func NewSchema(ctx context.Context, base string) (dsn string, drop func() error, err error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", nil, fmt.Errorf("read database URL: %w", err)
	}
	name := Unique()
	if err := execute(ctx, base, "CREATE SCHEMA "+name); err != nil {
		return "", nil, err
	}
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return u.String(), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), cleanLimit)
		defer cancel()
		return execute(ctx, base, "DROP SCHEMA "+name+" CASCADE")
	}, nil
}

func execute(ctx context.Context, dsn, statement string) error {
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", strings.ToLower(statement), err)
	}
	return nil
}
