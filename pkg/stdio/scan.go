package stdio

import (
	"bytes"

	"github.com/reeve-run/reeve/pkg/jsonlex"
)

// maxDepth is how deeply an answer may be nested.
const maxDepth = 1000

// scanner walks over JSON without taking it apart. It takes NaN, Infinity and -Infinity for numbers and notes that
// it did; otherwise it takes what encoding/json takes, but doesn't look at whether text is UTF-8.
type scanner struct {
	odd   bool
	depth int
}

// object walks over the object at i and tells of its members: the key without its quotes, and whether the value has a
// number that JSON doesn't know. It gives the index behind it, or -1.
func (s *scanner) object(b []byte, i int, member func(key, value []byte, odd bool)) int {
	if i >= len(b) || b[i] != '{' || s.depth >= maxDepth {
		return -1
	}
	s.depth++
	defer func() { s.depth-- }()
	i = jsonlex.Space(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	for {
		keyEnd := str(b, i)
		if keyEnd < 0 {
			return -1
		}
		key := b[i+1 : keyEnd-1]
		i = jsonlex.Space(b, keyEnd)
		if i >= len(b) || b[i] != ':' {
			return -1
		}
		i = jsonlex.Space(b, i+1)
		before := s.odd
		s.odd = false
		end := s.value(b, i)
		if end < 0 {
			return -1
		}
		if member != nil {
			member(key, b[i:end], s.odd)
		}
		s.odd = s.odd || before
		var more bool
		if i, more = next(b, end, '}'); !more {
			return i
		}
	}
}

func (s *scanner) array(b []byte, i int) int {
	if s.depth >= maxDepth {
		return -1
	}
	s.depth++
	defer func() { s.depth-- }()
	i = jsonlex.Space(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i = s.value(b, i); i < 0 {
			return -1
		}
		var more bool
		if i, more = next(b, i, ']'); !more {
			return i
		}
	}
}

// next steps over what stands between values: a comma, or the end of what holds them.
func next(b []byte, i int, end byte) (at int, more bool) {
	i = jsonlex.Space(b, i)
	switch {
	case i >= len(b):
		return -1, false
	case b[i] == ',':
		return jsonlex.Space(b, i+1), true
	case b[i] == end:
		return i + 1, false
	}
	return -1, false
}

func (s *scanner) value(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch c := b[i]; {
	case c == '"':
		return str(b, i)
	case c == '{':
		return s.object(b, i, nil)
	case c == '[':
		return s.array(b, i)
	case c == 't':
		return jsonlex.Word(b, i, "true")
	case c == 'f':
		return jsonlex.Word(b, i, "false")
	case c == 'n':
		return jsonlex.Word(b, i, "null")
	case c == 'N' || c == 'I' || c == '-' && i+1 < len(b) && b[i+1] == 'I':
		s.odd = true
		return oddNumber(b, i)
	default:
		return jsonlex.Number(b, i)
	}
}

func oddNumber(b []byte, i int) int {
	for _, w := range [...]string{"NaN", "Infinity", "-Infinity"} {
		if end := jsonlex.Word(b, i, w); end > 0 {
			return end
		}
	}
	return -1
}

// str walks over the string whose quote is at i.
func str(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	return jsonlex.String(b, i+1)
}

// finite copies a value that the scanner has accepted and writes null for the numbers that JSON doesn't know.
func finite(v []byte) []byte {
	out := make([]byte, 0, len(v)+8)
	for i := 0; i < len(v); {
		end := i + 1
		switch {
		case v[i] == '"':
			end = str(v, i)
		case v[i] == 'N' || v[i] == 'I' || bytes.HasPrefix(v[i:], []byte("-I")):
			if end = oddNumber(v, i); end > 0 {
				out = append(out, "null"...)
				i = end
				continue
			}
		}
		if end < 0 {
			return []byte("null") // not reached with an accepted value
		}
		out = append(out, v[i:end]...)
		i = end
	}
	return out
}
