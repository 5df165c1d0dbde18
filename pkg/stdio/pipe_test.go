package stdio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReaderSurvivesWhateverStandsInALine(t *testing.T) {
	long := strings.Repeat("x", 300<<10)
	input := "a\n\n\xff\xfe\x00\n" + long + "\n" + strings.Repeat("y", 200<<10) + "\nlast"
	for name, src := range map[string]io.Reader{
		"at once": strings.NewReader(input), "byte by byte": iotest.OneByteReader(strings.NewReader(input)),
		"with the end": iotest.DataErrReader(strings.NewReader(input)),
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(src, 256<<10)
			var got []string
			for {
				line, tooLong, err := r.Next()
				if err != nil {
					if !errors.Is(err, io.EOF) {
						t.Fatal(err)
					}
					break
				}
				got = append(got, fmt.Sprintf("%d %t %.3q", len(line), tooLong, line))
			}
			want := []string{`1 false "a"`, `0 false ""`, `3 false "\xff\xfe\x00"`, `4096 true "xxx"`, `204800 false "yyy"`, `4 false "las"`}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("\n got %v\nwant %v", got, want)
			}
		})
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("a\nbb\n\nccc"), 2)
	f.Fuzz(func(t *testing.T, input []byte, limit int) {
		if limit < 1 || limit > 1000 {
			return
		}
		want := strings.Split(string(input), "\n")
		if want[len(want)-1] == "" {
			want = want[:len(want)-1]
		}
		r := NewReader(iotest.OneByteReader(bytes.NewReader(input)), limit)
		for _, w := range want {
			line, tooLong, err := r.Next()
			if err != nil || tooLong != (len(w) > limit) || !tooLong && string(line) != w {
				t.Fatalf("%q %t %v, want %q", line, tooLong, err, w)
			}
		}
		if line, _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("%q %v behind the end", line, err)
		}
	})
}

func TestAWriterSendsInOrderAndCloses(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	wr := NewWriter(w, 100_000)
	var want bytes.Buffer
	for i := range 50_000 {
		s := fmt.Sprintf("message %d\n", i)
		want.WriteString(s)
		if err := wr.Send(Text(s)); err != nil {
			t.Fatal(err)
		}
	}
	wr.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%d bytes of %d arrived: %v", len(got), want.Len(), err)
	}
	if err := wr.Send(Text("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed writer said %v", err)
	}
	wr.Abort()
}

func TestAnAgentThatDoesNotReadHoldsUpNobody(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	wr := NewWriter(w, 4)
	big := Text(strings.Repeat("x", 1<<20))
	for err == nil { // as soon as the first is stuck in the pipe, the queue fills
		err = wr.Send(big)
	}
	if !errors.Is(err, ErrQueueFull) {
		t.Fatalf("got %v", err)
	}
	wr.Abort()
}

func TestAWriterWhoseAgentIsGoneEnds(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	wr := NewWriter(w, 4)
	_ = wr.Send(Text("x"))
	<-wr.done
	if err := wr.Send(Text("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}
