// Command describe prints the CRI as the pinned k8s.io/cri-api has it, one line for each
// message, field, enum, value and method, sorted: what our own protocol files are compared with.
package main

import (
	"bufio"
	"fmt"
	"os"
	"sort"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type lines []string

func (l *lines) add(format string, args ...any) {
	*l = append(*l, fmt.Sprintf(format, args...))
}

func (l *lines) messages(all protoreflect.MessageDescriptors) {
	for i := range all.Len() {
		message := all.Get(i)
		l.add("message %s map_entry=%t", message.FullName(), message.IsMapEntry())
		for j := range message.Fields().Len() {
			l.field(message.Fields().Get(j))
		}
		l.messages(message.Messages())
		l.enums(message.Enums())
	}
}

func (l *lines) field(field protoreflect.FieldDescriptor) {
	kind := field.Kind().String()
	switch {
	case field.Message() != nil:
		kind = string(field.Message().FullName())
	case field.Enum() != nil:
		kind = string(field.Enum().FullName())
	}
	oneof := "-"
	if field.ContainingOneof() != nil {
		oneof = string(field.ContainingOneof().Name())
	}
	options, ok := field.Options().(*descriptorpb.FieldOptions)
	if !ok {
		fmt.Fprintf(os.Stderr, "%s: options of an unknown type\n", field.FullName())
		os.Exit(1)
	}
	l.add("field %s.%d %s %s %s oneof=%s presence=%t packed=%t deprecated=%t",
		field.Parent().FullName(), field.Number(), field.Name(), field.Cardinality(), kind, oneof,
		field.HasPresence(), field.IsPacked(), options.GetDeprecated())
}

func (l *lines) enums(all protoreflect.EnumDescriptors) {
	for i := range all.Len() {
		enum := all.Get(i)
		for j := range enum.Values().Len() {
			value := enum.Values().Get(j)
			l.add("value %s.%d %s", enum.FullName(), value.Number(), value.Name())
		}
	}
}

func (l *lines) services(all protoreflect.ServiceDescriptors) {
	for i := range all.Len() {
		service := all.Get(i)
		for j := range service.Methods().Len() {
			method := service.Methods().Get(j)
			l.add("rpc %s %s %s streams=%t,%t", method.FullName(), method.Input().FullName(),
				method.Output().FullName(), method.IsStreamingClient(), method.IsStreamingServer())
		}
	}
}

func main() {
	// Through a message: the name of the variable that holds the file tells where it was generated.
	file := (&runtimeapi.VersionRequest{}).ProtoReflect().Descriptor().ParentFile()
	var l lines
	l.messages(file.Messages())
	l.enums(file.Enums())
	l.services(file.Services())
	sort.Strings(l)
	out := bufio.NewWriter(os.Stdout)
	for _, line := range l {
		fmt.Fprintln(out, line)
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
