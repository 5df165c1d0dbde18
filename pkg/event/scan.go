package event

import (
	"encoding/json"

	"github.com/reeve-run/reeve/pkg/jsonlex"
)

// maxDepth is how deeply JSON may be nested; encoding/json has the same limit.
const maxDepth = 10000

// valid reports whether b is one JSON value with nothing but space around it. It agrees with encoding/json.Valid, at
// several times its speed.
func valid(b []byte) bool {
	i := skipValue(b, jsonlex.Space(b, 0), maxDepth)
	return i >= 0 && jsonlex.Space(b, i) == len(b)
}

// skipValue gives the index behind the value that begins at i, or -1 where there is none. depth is how many more levels
// may follow.
func skipValue(b []byte, i, depth int) int {
	if i >= len(b) {
		return -1
	}
	switch c := b[i]; {
	case c == '"':
		return jsonlex.String(b, i+1)
	case c == '{':
		return skipObject(b, i+1, depth-1, nil)
	case c == '[':
		return skipArray(b, i+1, depth-1, nil)
	case c == '-' || c >= '0' && c <= '9':
		return jsonlex.Number(b, i)
	case c == 't':
		return jsonlex.Word(b, i, "true")
	case c == 'f':
		return jsonlex.Word(b, i, "false")
	case c == 'n':
		return jsonlex.Word(b, i, "null")
	}
	return -1
}

// skipObject goes on behind '{'. member, if any, is given each key (without quotes, escapes as they stand) and value.
func skipObject(b []byte, i, depth int, member func(key, value []byte)) int {
	if depth < 0 {
		return -1
	}
	i = jsonlex.Space(b, i)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return -1
		}
		key := i + 1
		if i = jsonlex.String(b, key); i < 0 {
			return -1
		}
		keyEnd := i - 1
		if i = jsonlex.Space(b, i); i >= len(b) || b[i] != ':' {
			return -1
		}
		value := jsonlex.Space(b, i+1)
		if i = skipValue(b, value, depth); i < 0 {
			return -1
		}
		if member != nil {
			member(b[key:keyEnd], b[value:i])
		}
		if i = jsonlex.Space(b, i); i >= len(b) {
			return -1
		}
		switch b[i] {
		case '}':
			return i + 1
		case ',':
			i = jsonlex.Space(b, i+1)
		default:
			return -1
		}
	}
}

// Elements calls element for each value of a JSON array, in its order. It reports whether b is one array with nothing but
// space around it.
func Elements(b []byte, element func(value []byte)) bool {
	i := jsonlex.Space(b, 0)
	if i >= len(b) || b[i] != '[' {
		return false
	}
	i = skipArray(b, i+1, maxDepth-1, element)
	return i >= 0 && jsonlex.Space(b, i) == len(b)
}

// skipArray goes on behind '['. element, if any, is given each value.
func skipArray(b []byte, i, depth int, element func(value []byte)) int {
	if depth < 0 {
		return -1
	}
	i = jsonlex.Space(b, i)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		value := i
		if i = skipValue(b, i, depth); i < 0 {
			return -1
		}
		if element != nil {
			element(b[value:i])
		}
		if i = jsonlex.Space(b, i); i >= len(b) {
			return -1
		}
		switch b[i] {
		case ']':
			return i + 1
		case ',':
			i = jsonlex.Space(b, i+1)
		default:
			return -1
		}
	}
}

// unquote gives the text of a JSON string that was scanned; ok is false for another kind of value.
func unquote(value []byte) (text []byte, ok bool) {
	if len(value) < 2 || value[0] != '"' {
		return nil, false
	}
	inner := value[1 : len(value)-1]
	for _, c := range inner {
		if c == '\\' || c >= 0x80 { // escapes, and UTF-8 that may not be valid
			var s string
			if json.Unmarshal(value, &s) != nil {
				return nil, false
			}
			return []byte(s), true
		}
	}
	return inner, true
}

// object scans a JSON object with nothing around it but space.
func object(b []byte, member func(key, value []byte)) bool {
	i := jsonlex.Space(b, 0)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	i = skipObject(b, i+1, maxDepth-1, member)
	return i >= 0 && jsonlex.Space(b, i) == len(b)
}

// optional is the text of a string, or nil for null.
func optional(v []byte) (text []byte, ok bool) {
	if string(v) == "null" {
		return nil, true
	}
	return unquote(v)
}
