// Package contract holds the descriptor set that tripod compiles against the contract that the kubelet was built with.
//
// Both sides are flattened into facts: one line for each service, method, message, field, oneof and enum value, under its
// full name. How the declarations are spread over files, their order within a file and their comments are no part of the
// wire and count for nothing.
package contract

import (
	"fmt"
	"sort"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Facts maps "kind full.name" to everything about that declaration that a peer could notice.
type Facts map[string]string

// FromSet links the files of a set and collects their facts. A set that refers to something that it does not hold, or
// that declares a name twice, is an error.
func FromSet(set *descriptorpb.FileDescriptorSet) (Facts, error) {
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, err
	}
	facts := Facts{}
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		facts.addFile(file)
		return true
	})
	return facts, nil
}

// FromFile collects the facts of one file that is linked already.
func FromFile(file protoreflect.FileDescriptor) Facts {
	facts := Facts{}
	facts.addFile(file)
	return facts
}

// Compare lists what differs, sorted, in words that name the declaration and both sides.
func Compare(ours, theirs Facts) []string {
	var differences []string
	for name, fact := range theirs {
		mine, ok := ours[name]
		switch {
		case !ok:
			differences = append(differences, fmt.Sprintf("%s: missing from ours; upstream: %s", name, fact))
		case mine != fact:
			differences = append(differences, fmt.Sprintf("%s:\n\tours:     %s\n\tupstream: %s", name, mine, fact))
		}
	}
	for name, fact := range ours {
		if _, ok := theirs[name]; !ok {
			differences = append(differences, fmt.Sprintf("%s: unknown upstream; ours: %s", name, fact))
		}
	}
	sort.Strings(differences)
	return differences
}

func (f Facts) add(kind string, d protoreflect.Descriptor, format string, args ...any) {
	f[fmt.Sprintf("%s %s", kind, d.FullName())] = fmt.Sprintf(format, args...)
}

func (f Facts) addFile(file protoreflect.FileDescriptor) {
	// Proto2, proto3 and editions differ in presence and packing, so the syntax belongs to the wire; so does the package.
	key, syntax := fmt.Sprintf("package %q", file.Package()), file.Syntax().String()
	if former, ok := f[key]; ok && former != syntax {
		syntax = "mixed"
	}
	f[key] = syntax
	for s := range each(file.Services()) {
		f.addService(s)
	}
	for m := range each(file.Messages()) {
		f.addMessage(m)
	}
	for e := range each(file.Enums()) {
		f.addEnum(e)
	}
	for x := range each(file.Extensions()) {
		f.addField(x)
	}
}

func (f Facts) addService(service protoreflect.ServiceDescriptor) {
	f.add("service", service, "%d methods", service.Methods().Len())
	for m := range each(service.Methods()) {
		f.add("method", m, "(%s) -> (%s), client streams: %t, server streams: %t",
			m.Input().FullName(), m.Output().FullName(), m.IsStreamingClient(), m.IsStreamingServer())
	}
}

func (f Facts) addMessage(message protoreflect.MessageDescriptor) {
	f.add("message", message, "%d fields, map entry: %t, reserved: %s, extensions: %s",
		message.Fields().Len(), message.IsMapEntry(), reserved(message), message.ExtensionRanges())
	for x := range each(message.Fields()) {
		f.addField(x)
	}
	for o := range each(message.Oneofs()) {
		f.add("oneof", o, "synthetic: %t", o.IsSynthetic())
	}
	for m := range each(message.Messages()) {
		f.addMessage(m)
	}
	for e := range each(message.Enums()) {
		f.addEnum(e)
	}
	for x := range each(message.Extensions()) {
		f.addField(x)
	}
}

func (f Facts) addField(field protoreflect.FieldDescriptor) {
	kind := field.Kind().String()
	if m := field.Message(); m != nil {
		kind += " " + string(m.FullName())
	}
	if e := field.Enum(); e != nil {
		kind += " " + string(e.FullName())
	}
	oneof := "none"
	if o := field.ContainingOneof(); o != nil {
		oneof = string(o.Name())
	}
	options, _ := field.Options().(*descriptorpb.FieldOptions)
	f.add("field", field, "%s %s = %d, json: %s, map: %t, packed: %t, presence: %t, oneof: %s, default: %s, options: {%s}",
		field.Cardinality(), kind, field.Number(), field.JSONName(), field.IsMap(), field.IsPacked(), field.HasPresence(),
		oneof, field.Default(), text(options))
}

func (f Facts) addEnum(enum protoreflect.EnumDescriptor) {
	f.add("enum", enum, "%d values, reserved names: %s, reserved numbers: %s",
		enum.Values().Len(), enum.ReservedNames(), enum.ReservedRanges())
	for v := range each(enum.Values()) {
		// The full name of a value leaves out its enum, as in C++.
		f[fmt.Sprintf("value %s.%s", enum.FullName(), v.Name())] = fmt.Sprintf("%d", v.Number())
	}
}

func reserved(message protoreflect.MessageDescriptor) string {
	return fmt.Sprintf("names %s, numbers %s", message.ReservedNames(), message.ReservedRanges())
}

// text writes options canonically: the text format of the library varies its spacing on purpose, the bytes do not.
func text(options *descriptorpb.FieldOptions) string {
	if options == nil {
		return ""
	}
	bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(options)
	if err != nil {
		return err.Error()
	}
	if len(bytes) == 0 {
		return ""
	}
	return fmt.Sprintf("deprecated: %t, debug_redact: %t, encoded: %x",
		options.GetDeprecated(), options.GetDebugRedact(), bytes)
}

// list is what the collections of descriptors have in common.
type list[D any] interface {
	Len() int
	Get(int) D
}

func each[D any](l list[D]) func(func(D) bool) {
	return func(yield func(D) bool) {
		for i := range l.Len() {
			if !yield(l.Get(i)) {
				return
			}
		}
	}
}
