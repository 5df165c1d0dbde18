// Command child is the no-op agent of the bench: it answers every task with an empty result. It takes only the id out of
// a line, so that what is measured is the way to it and back.
package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
)

func main() { os.Exit(serve(os.Stdin, os.Stdout)) }

func serve(stdin io.Reader, stdout io.Writer) int {
	in, out := bufio.NewReaderSize(stdin, 256<<10), bufio.NewWriterSize(stdout, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0 // stdin was closed
		}
		if !answer(out, line) {
			_ = out.Flush() // the answer to a shutdown; nobody is left to hear of its failure
			return 0
		}
		if in.Buffered() == 0 && out.Flush() != nil {
			return 1
		}
	}
}

// answer writes the answer to a line and says whether to go on.
func answer(out *bufio.Writer, line []byte) bool {
	head := line[:min(len(line), 200)] // id and type come first
	id := []byte("null")
	if i := bytes.Index(head, []byte(`"id":"`)); i >= 0 {
		rest := head[i+5:]
		if end := bytes.IndexByte(rest[1:], '"'); end >= 0 {
			id = rest[:end+2]
		}
	}
	_, _ = out.WriteString(`{"id":`) // a failure stays with the writer and shows at Flush
	_, _ = out.Write(id)
	_, _ = out.WriteString(`,"status":"ok","result":{}}` + "\n")
	return !bytes.Contains(head, []byte(`"type":"shutdown"`))
}
