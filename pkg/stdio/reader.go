package stdio

import (
	"bytes"
	"io"
)

// DefaultLineLimit is the longest answer that is kept, in bytes.
const DefaultLineLimit = 16 << 20

const (
	readerStart = 64 << 10
	readerKeep  = 1 << 20 // a larger buffer is given back once it is empty
	headKept    = 4 << 10 // of a line that is too long
)

// Reader reads lines of bounded length, whatever stands in them. It is for one goroutine.
type Reader struct {
	src        io.Reader
	limit      int
	buf        []byte
	start, end int
	err        error
}

// NewReader reads from src lines of at most limit bytes; limit 0 means DefaultLineLimit.
func NewReader(src io.Reader, limit int) *Reader {
	if limit <= 0 {
		limit = DefaultLineLimit
	}
	return &Reader{src: src, limit: limit}
}

// Next gives the next line without its end; it is valid until the next call. tooLong says that only the line's beginning
// was kept. What stands behind the last line end counts as a line. The error is the source's, after all lines.
func (r *Reader) Next() (line []byte, tooLong bool, err error) {
	seen := 0 // of the bytes held, those known to have no line end
	for {
		if i := bytes.IndexByte(r.buf[r.start+seen:r.end], '\n'); i >= 0 {
			line = r.buf[r.start : r.start+seen+i]
			r.start += seen + i + 1
			return r.bounded(line)
		}
		seen = r.end - r.start
		if r.err != nil {
			line = r.buf[r.start:r.end]
			r.start = r.end
			if len(line) > 0 {
				return r.bounded(line)
			}
			return nil, false, r.err
		}
		if seen > r.limit {
			return r.skip(), true, nil
		}
		r.fill()
	}
}

// bounded keeps the beginning of a line that happened to be held whole, and is too long all the same.
func (r *Reader) bounded(line []byte) ([]byte, bool, error) {
	if len(line) > r.limit {
		return line[:min(len(line), headKept)], true, nil
	}
	return line, false, nil
}

// fill reads more, behind what is held.
func (r *Reader) fill() {
	if r.start == r.end {
		r.start, r.end = 0, 0
		if len(r.buf) > readerKeep {
			r.buf = nil
		}
	}
	if r.end == len(r.buf) {
		r.room()
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	r.err = err
}

// room makes room: by moving what is held to the front where that helps, else by a larger buffer.
func (r *Reader) room() {
	held := r.end - r.start
	to := r.buf
	if held > len(r.buf)/2 || len(r.buf) == 0 {
		to = make([]byte, max(readerStart, 2*len(r.buf)))
	}
	copy(to, r.buf[r.start:r.end])
	r.buf, r.start, r.end = to, 0, held
}

// skip throws a line away up to its end and gives its beginning.
func (r *Reader) skip() []byte {
	head := bytes.Clone(r.buf[r.start:min(r.end, r.start+headKept)])
	for {
		if i := bytes.IndexByte(r.buf[r.start:r.end], '\n'); i >= 0 {
			r.start += i + 1
			return head
		}
		r.start, r.end = 0, 0
		if r.err != nil {
			return head
		}
		r.fill()
	}
}
