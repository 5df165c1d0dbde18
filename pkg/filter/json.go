package filter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/reeve-run/reeve/pkg/event"
)

// value is a JSON value that was found valid. Objects and lists are looked into level by level, as far as somebody asks,
// and each of them once.
func value(raw []byte) ref.Val {
	raw = bytes.Trim(raw, " \t\r\n")
	switch raw[0] {
	case '{':
		return &object{raw: raw}
	case '[':
		return &list{raw: raw}
	case '"':
		return types.String(unquote(raw))
	case 't', 'f':
		return types.Bool(raw[0] == 't')
	case 'n':
		return types.NullValue
	}
	return types.DefaultTypeAdapter.NativeToValue(number(string(raw)))
}

// number is an int64 or, beyond that, an uint64 for one that is written as a whole number, else a float64.
func number(s string) any {
	if !strings.ContainsAny(s, ".eE") {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return i
		}
		if u, err := strconv.ParseUint(s, 10, 64); err == nil {
			return u
		}
	}
	f, _ := strconv.ParseFloat(s, 64) // beyond the range it is infinite, which is as near as one gets
	return f
}

// unquote gives the text of a string.
func unquote(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	_ = json.Unmarshal(raw, &s) // it was found valid
	return s
}

// maxDepth is how deeply a value may be nested that is looked at as a whole, as a comparison does.
const maxDepth = 100

var errDepth = fmt.Errorf("it is nested more than %d levels deep, and so can't be looked at as a whole", maxDepth)

// whole is a JSON value all of which is asked for, by one pass over it: CEL's own map, list or error.
func whole(raw []byte) ref.Val {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	if err == nil {
		v, err = native(v, maxDepth)
	}
	if err != nil {
		return types.WrapErr(err)
	}
	return types.DefaultTypeAdapter.NativeToValue(v)
}

// native replaces numbers by Go's.
func native(v any, depth int) (_ any, err error) {
	if depth == 0 {
		return nil, errDepth
	}
	switch v := v.(type) {
	case json.Number:
		return number(string(v)), nil
	case map[string]any:
		for k, e := range v {
			if v[k], err = native(e, depth-1); err != nil {
				return nil, err
			}
		}
	case []any:
		for i, e := range v {
			if v[i], err = native(e, depth-1); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// part is a value within another, made when it is asked for.
type part struct {
	raw   []byte
	value ref.Val
}

func (p *part) get() ref.Val {
	if p.value == nil {
		p.value = value(p.raw)
	}
	return p.value
}

// object is a JSON object.
type object struct {
	raw     []byte
	members []member
	places  map[string]int // of the names, where there are many
	all     ref.Val
}

type member struct {
	name []byte
	part
}

// few is how many names are looked through one by one.
const few = 16

func (o *object) scan() {
	if o.members != nil {
		return
	}
	o.members = make([]member, 0, few/2)
	event.Members(o.raw, func(name, v []byte) {
		if bytes.IndexByte(name, '\\') >= 0 {
			name = []byte(unquote([]byte(`"` + string(name) + `"`)))
		}
		o.members = append(o.members, member{name, part{raw: v}})
	})
	if len(o.members) > few {
		o.places = make(map[string]int, len(o.members))
		for i, m := range o.members {
			o.places[string(m.name)] = i
		}
	}
}

// Find gives a member. Of several with one name the last counts.
func (o *object) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	o.scan()
	if o.places != nil {
		i, ok := o.places[string(name)]
		if !ok {
			return nil, false
		}
		return o.members[i].get(), true
	}
	for i := len(o.members) - 1; i >= 0; i-- {
		if string(o.members[i].name) == string(name) {
			return o.members[i].get(), true
		}
	}
	return nil, false
}

// Get is Find with an error where there is no such member.
func (o *object) Get(key ref.Val) ref.Val {
	if v, ok := o.Find(key); ok {
		return v
	}
	return types.ValOrErr(key, "no such key: %v", key)
}

// Contains reports whether there is a member.
func (o *object) Contains(key ref.Val) ref.Val {
	_, ok := o.Find(key)
	return types.Bool(ok)
}

// Type is that of maps.
func (o *object) Type() ref.Type { return types.MapType }

// whole is the object as CEL's own map, for what is asked of all its members.
func (o *object) whole() ref.Val {
	if o.all == nil {
		o.all = whole(o.raw)
	}
	return o.all
}

// Iterator goes over the names.
func (o *object) Iterator() traits.Iterator {
	o.scan()
	names := make([]part, 0, len(o.members))
	seen := make(map[string]bool, len(o.members))
	for _, m := range o.members {
		if !seen[string(m.name)] {
			seen[string(m.name)] = true
			names = append(names, part{value: types.String(m.name)})
		}
	}
	return &iterator{Val: types.NullValue, elements: names}
}

// Size counts the members.
func (o *object) Size() ref.Val {
	o.scan()
	if o.places != nil {
		return types.Int(len(o.places))
	}
	n := 0
	for i, m := range o.members {
		if !slices.ContainsFunc(o.members[:i], func(other member) bool { return bytes.Equal(m.name, other.name) }) {
			n++
		}
	}
	return types.Int(n)
}

// IsZeroValue reports whether there are no members.
func (o *object) IsZeroValue() bool { return o.Size() == types.IntZero }

// Equal compares all members.
func (o *object) Equal(other ref.Val) ref.Val {
	if _, ok := other.(traits.Mapper); !ok {
		return types.False
	}
	return o.whole().Equal(other)
}

// ConvertToType is that of maps.
func (o *object) ConvertToType(t ref.Type) ref.Val { return o.whole().ConvertToType(t) }

// ConvertToNative is that of maps.
func (o *object) ConvertToNative(t reflect.Type) (any, error) { return o.whole().ConvertToNative(t) }

// Value is a Go map.
func (o *object) Value() any { return o.whole().Value() }

// list is a JSON array.
type list struct {
	raw      []byte
	elements []part
	all      ref.Val
}

func (l *list) scan() []part {
	if l.elements == nil {
		l.elements = []part{}
		event.Elements(l.raw, func(v []byte) { l.elements = append(l.elements, part{raw: v}) })
	}
	return l.elements
}

// whole is the array as CEL's own list, for what is asked of all its elements.
func (l *list) whole() ref.Val {
	if l.all == nil {
		l.all = whole(l.raw)
	}
	return l.all
}

// Get gives an element.
func (l *list) Get(index ref.Val) ref.Val {
	i, err := types.GetOrError(index)
	if err != nil {
		return types.ValOrErr(index, "%v", err)
	}
	elements := l.scan()
	if i < 0 || i >= len(elements) {
		return types.NewErr("index %d is out of range in a list of %d", i, len(elements))
	}
	return elements[i].get()
}

// Size counts the elements.
func (l *list) Size() ref.Val { return types.Int(len(l.scan())) }

// Type is that of lists.
func (l *list) Type() ref.Type { return types.ListType }

// Iterator goes over the elements.
func (l *list) Iterator() traits.Iterator { return &iterator{Val: types.NullValue, elements: l.scan()} }

// Contains reports whether one element equals a value.
func (l *list) Contains(v ref.Val) ref.Val {
	if all, ok := l.whole().(traits.Lister); ok {
		return all.Contains(v)
	}
	return l.whole()
}

// Add appends a list.
func (l *list) Add(other ref.Val) ref.Val {
	if all, ok := l.whole().(traits.Lister); ok {
		return all.Add(other)
	}
	return l.whole()
}

// IsZeroValue reports whether there are no elements.
func (l *list) IsZeroValue() bool { return len(l.scan()) == 0 }

// Equal compares all elements.
func (l *list) Equal(other ref.Val) ref.Val {
	if _, ok := other.(traits.Lister); !ok {
		return types.False
	}
	return l.whole().Equal(other)
}

// ConvertToType is that of lists.
func (l *list) ConvertToType(t ref.Type) ref.Val { return l.whole().ConvertToType(t) }

// ConvertToNative is that of lists.
func (l *list) ConvertToNative(t reflect.Type) (any, error) { return l.whole().ConvertToNative(t) }

// Value is a Go slice.
func (l *list) Value() any { return l.whole().Value() }

// iterator goes over a list's elements. As a value of CEL it is nothing.
type iterator struct {
	ref.Val
	elements []part
}

// HasNext reports whether there is one more.
func (it *iterator) HasNext() ref.Val { return types.Bool(len(it.elements) > 0) }

// Next gives it.
func (it *iterator) Next() ref.Val {
	if len(it.elements) == 0 {
		return nil
	}
	next := &it.elements[0]
	it.elements = it.elements[1:]
	return next.get()
}

var (
	_ traits.Mapper = (*object)(nil)
	_ traits.Zeroer = (*object)(nil)
	_ traits.Lister = (*list)(nil)
	_ traits.Zeroer = (*list)(nil)
)
