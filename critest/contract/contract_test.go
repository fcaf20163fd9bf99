package contract

import (
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	upstream "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ours reads the descriptor set that the crate tripod-cri-api compiled.
func ours(t *testing.T) *descriptorpb.FileDescriptorSet {
	t.Helper()
	path := os.Getenv("TRIPOD_DESCRIPTORS")
	if path == "" {
		t.Fatal("TRIPOD_DESCRIPTORS is not set; write the file with: cargo run -p tripod-cri-api --example descriptors -- FILE")
	}
	bytes, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(bytes, set); err != nil {
		t.Fatalf("%s is not a descriptor set: %v", path, err)
	}
	return set
}

func theirs() Facts {
	return FromFile(upstream.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto)
}

func differences(t *testing.T, set *descriptorpb.FileDescriptorSet) []string {
	t.Helper()
	facts, err := FromSet(set)
	if err != nil {
		t.Fatal(err)
	}
	return Compare(facts, theirs())
}

func TestOursIsTheUpstreamContract(t *testing.T) {
	for _, difference := range differences(t, ours(t)) {
		t.Error(difference)
	}
	count := map[string]int{}
	for name := range theirs() {
		kind, _, _ := strings.Cut(name, " ")
		count[kind]++
	}
	t.Logf("compared: %v", count)
	if count["service"] != 2 || count["method"] != 43 || count["message"] == 0 || count["field"] == 0 || count["value"] == 0 {
		t.Errorf("the upstream contract is not the one that was pinned: %v", count)
	}
}

// Each mutation stands for a slip of the pen in a .proto file; the comparison has to report it under the right name.
func TestEveryKindOfSlipIsReported(t *testing.T) {
	label := descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	uint64Type := descriptorpb.FieldDescriptorProto_TYPE_UINT64
	for _, slip := range []struct {
		name   string
		mutate func(set edited)
		want   []string
	}{
		{"service renamed", func(set edited) { set.service("ImageService").Name = proto.String("Images") },
			[]string{"service runtime.v1.ImageService: missing", "service runtime.v1.Images: unknown"}},
		{"method missing", func(set edited) {
			s := set.service("ImageService")
			s.Method = s.Method[1:]
		}, []string{"method runtime.v1.ImageService.ListImages: missing"}},
		{"method too many", func(set edited) {
			s := set.service("ImageService")
			extra := proto.CloneOf(s.Method[0])
			extra.Name = proto.String("Extra")
			s.Method = append(s.Method, extra)
		}, []string{"method runtime.v1.ImageService.Extra: unknown"}},
		{"server no longer streams", func(set edited) {
			set.method("RuntimeService", "GetContainerEvents").ServerStreaming = nil
		}, []string{"method runtime.v1.RuntimeService.GetContainerEvents:\n"}},
		{"client streams", func(set edited) {
			set.method("RuntimeService", "Exec").ClientStreaming = proto.Bool(true)
		}, []string{"method runtime.v1.RuntimeService.Exec:\n"}},
		{"other request", func(set edited) {
			set.method("RuntimeService", "Attach").InputType = proto.String(".runtime.v1.ExecRequest")
		}, []string{"method runtime.v1.RuntimeService.Attach:\n"}},
		{"message missing", func(set edited) {
			// The method that refers to it goes too: without, the set would not even link.
			method := set.method("RuntimeService", "UpdatePodSandboxResources")
			message := set.message("UpdatePodSandboxResourcesRequest")
			s := set.service("RuntimeService")
			s.Method = without(s.Method, method)
			for _, file := range set.File {
				file.MessageType = without(file.MessageType, message)
			}
		}, []string{"message runtime.v1.UpdatePodSandboxResourcesRequest: missing",
			"field runtime.v1.UpdatePodSandboxResourcesRequest.overhead: missing"}},
		{"message too many", func(set edited) {
			set.File[0].MessageType = append(set.File[0].MessageType, &descriptorpb.DescriptorProto{Name: proto.String("Extra")})
		}, []string{"message runtime.v1.Extra: unknown"}},
		{"nested message too many", func(set edited) {
			m := set.message("Mount")
			m.NestedType = append(m.NestedType, &descriptorpb.DescriptorProto{Name: proto.String("Extra")})
		}, []string{"message runtime.v1.Mount.Extra: unknown"}},
		{"field missing", func(set edited) {
			m := set.message("Mount")
			m.Field = m.Field[:len(m.Field)-1]
		}, []string{"field runtime.v1.Mount.mount_options: missing"}},
		{"field renamed", func(set edited) { set.field("Mount", "readonly").Name = proto.String("read_only") },
			[]string{"field runtime.v1.Mount.readonly: missing", "field runtime.v1.Mount.read_only: unknown"}},
		{"field with another JSON name", func(set edited) {
			set.field("Mount", "host_path").JsonName = proto.String("host_path")
		}, []string{"field runtime.v1.Mount.host_path:\n"}},
		{"field renumbered", func(set edited) { set.field("ImageSpec", "image_ref").Number = proto.Int32(3) },
			[]string{"field runtime.v1.ImageSpec.image_ref:\n"}},
		{"fields swapped", func(set edited) {
			set.field("Mount", "container_path").Number = proto.Int32(2)
			set.field("Mount", "host_path").Number = proto.Int32(1)
		}, []string{"field runtime.v1.Mount.container_path:\n", "field runtime.v1.Mount.host_path:\n"}},
		{"field of another type", func(set edited) { set.field("Mount", "readonly").Type = &uint64Type },
			[]string{"field runtime.v1.Mount.readonly:\n"}},
		{"field of another message", func(set edited) {
			set.field("ContainerStats", "writable_layer").TypeName = proto.String(".runtime.v1.SwapUsage")
		}, []string{"field runtime.v1.ContainerStats.writable_layer:\n"}},
		{"field of another enum", func(set edited) {
			set.field("PortMapping", "protocol").TypeName = proto.String(".runtime.v1.PodSandboxState")
		}, []string{"field runtime.v1.PortMapping.protocol:\n"}},
		{"field repeated", func(set edited) { set.field("Mount", "host_path").Label = &label },
			[]string{"field runtime.v1.Mount.host_path:\n"}},
		{"field unpacked", func(set edited) {
			set.field("PortForwardRequest", "port").Options = &descriptorpb.FieldOptions{Packed: proto.Bool(false)}
		}, []string{"field runtime.v1.PortForwardRequest.port:\n"}},
		{"field in a oneof", func(set edited) {
			m := set.message("Mount")
			m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("source")})
			set.field("Mount", "host_path").OneofIndex = proto.Int32(0)
		}, []string{"field runtime.v1.Mount.host_path:\n", "oneof runtime.v1.Mount.source: unknown"}},
		{"field no longer secret", func(set edited) { set.field("AuthConfig", "password").Options = nil },
			[]string{"field runtime.v1.AuthConfig.password:\n"}},
		{"map of other values", func(set edited) {
			entry := set.message("PodSandboxConfig").NestedType[0]
			entry.Field[1].Type = &uint64Type
		}, []string{"field runtime.v1.PodSandboxConfig.LabelsEntry.value:\n"}},
		{"map turned into a list", func(set edited) {
			set.message("PodSandboxConfig").NestedType[0].Options = nil
		}, []string{"field runtime.v1.PodSandboxConfig.labels:\n", "message runtime.v1.PodSandboxConfig.LabelsEntry:\n"}},
		{"number reserved", func(set edited) {
			m := set.message("Mount")
			m.ReservedRange = append(m.ReservedRange,
				&descriptorpb.DescriptorProto_ReservedRange{Start: proto.Int32(90), End: proto.Int32(91)})
		}, []string{"message runtime.v1.Mount:\n"}},
		{"enum value missing", func(set edited) {
			e := set.enum("Signal")
			e.Value = e.Value[:len(e.Value)-1]
		}, []string{"value runtime.v1.Signal.SIGNAL_SIGRTMAX: missing"}},
		{"enum value renumbered", func(set edited) { set.enum("Protocol").Value[2].Number = proto.Int32(3) },
			[]string{"value runtime.v1.Protocol.SCTP:\n"}},
		{"enum value renamed", func(set edited) { set.enum("Protocol").Value[2].Name = proto.String("DCCP") },
			[]string{"value runtime.v1.Protocol.SCTP: missing", "value runtime.v1.Protocol.DCCP: unknown"}},
		{"nested enum value renumbered", func(set edited) {
			set.message("SecurityProfile").EnumType[0].Value[2].Number = proto.Int32(9)
		}, []string{"value runtime.v1.SecurityProfile.ProfileType.Localhost:\n"}},
		{"other syntax", func(set edited) {
			set.File[0].Syntax = proto.String("proto2")
		}, []string{`package "runtime.v1":`}},
	} {
		t.Run(slip.name, func(t *testing.T) {
			set := proto.CloneOf(ours(t))
			slip.mutate(edited{set, t})
			found := differences(t, set)
			for _, want := range slip.want {
				if !slices.ContainsFunc(found, func(difference string) bool { return strings.HasPrefix(difference, want) }) {
					t.Errorf("no report begins with %q; reported:\n%s", want, strings.Join(found, "\n"))
				}
			}
		})
	}
}

func without[D comparable](all []D, gone D) []D {
	return slices.DeleteFunc(all, func(d D) bool { return d == gone })
}

// edited finds declarations in whichever file of the set they are, and fails the test if they are in none.
type edited struct {
	*descriptorpb.FileDescriptorSet
	t *testing.T
}

func (e edited) service(name string) *descriptorpb.ServiceDescriptorProto {
	return find(e, name, (*descriptorpb.FileDescriptorProto).GetService)
}

func (e edited) message(name string) *descriptorpb.DescriptorProto {
	return find(e, name, (*descriptorpb.FileDescriptorProto).GetMessageType)
}

func (e edited) enum(name string) *descriptorpb.EnumDescriptorProto {
	return find(e, name, (*descriptorpb.FileDescriptorProto).GetEnumType)
}

func (e edited) method(service, name string) *descriptorpb.MethodDescriptorProto {
	return named(e, name, e.service(service).Method)
}

func (e edited) field(message, name string) *descriptorpb.FieldDescriptorProto {
	return named(e, name, e.message(message).Field)
}

func find[D interface{ GetName() string }](e edited, name string, in func(*descriptorpb.FileDescriptorProto) []D) D {
	e.t.Helper()
	var all []D
	for _, file := range e.File {
		all = append(all, in(file)...)
	}
	return named(e, name, all)
}

func named[D interface{ GetName() string }](e edited, name string, all []D) D {
	e.t.Helper()
	for _, d := range all {
		if d.GetName() == name {
			return d
		}
	}
	e.t.Fatalf("our set has no %s", name)
	panic("unreachable")
}
