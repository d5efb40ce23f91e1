// Command plugin is an NRI plugin for tests, made of NRI's own stub: it writes down what it is
// told, one JSON object a line, and does what its rules say.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
)

// rules are given as a file, or as the configuration of a plugin that the runtime starts.
type rules struct {
	// Out is where lines go.
	Out string
	// Events to subscribe to; none: all.
	Events string
	// Adjust is what containers become.
	Adjust *api.ContainerAdjustment
	// Only is the name of the container that Adjust and Also are for; empty: all.
	Only string
	// Also are new limits for another container, by name, when one is created.
	Also *api.LinuxResources
	// AlsoOf names that container.
	AlsoOf string
	// Update is what becomes of new limits that a client wants.
	Update *api.LinuxResources
	// Refuse has a text for the events that are refused.
	Refuse map[string]string
	// Hang names the event that is never answered.
	Hang string
	// Hold is a file that Synchronize waits for.
	Hold string
	// Ask is a file with limits for the container that is named in it: once it is there, they
	// are asked for.
	Ask string
	// Strict has requests fail that this plugin gives no answer to.
	Strict bool
	// Reject is what it says of all adjustments.
	Reject string
}

type line struct {
	Event       string            `json:"event"`
	Pod         string            `json:"pod,omitempty"`
	Container   string            `json:"container,omitempty"`
	Name        string            `json:"name,omitempty"`
	State       string            `json:"state,omitempty"`
	Env         []string          `json:"env,omitempty"`
	Args        []string          `json:"args,omitempty"`
	Limit       int64             `json:"limit,omitempty"`
	Pods        []string          `json:"pods,omitempty"`
	Containers  []string          `json:"containers,omitempty"`
	Text        string            `json:"text,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type plugin struct {
	mu    sync.Mutex
	rules rules
	stub  stub.Stub
	ids   map[string]string
}

func (p *plugin) write(l line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	file, err := os.OpenFile(p.rules.Out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	text, err := json.Marshal(l)
	if err != nil {
		panic(err)
	}
	if _, err := file.Write(append(text, '\n')); err != nil {
		panic(err)
	}
}

// told writes an event down, and says what the rules have for it.
func (p *plugin) told(event string, pod *api.PodSandbox, container *api.Container) error {
	l := line{Event: event, Pod: pod.GetId(), Name: pod.GetName()}
	if container != nil {
		l.Container, l.Name = container.GetId(), container.GetName()
		l.State, l.Env, l.Args = container.GetState().String(), container.GetEnv(), container.GetArgs()
		l.Annotations = container.GetAnnotations()
		l.Limit = container.GetLinux().GetResources().GetMemory().GetLimit().GetValue()
		p.mu.Lock()
		p.ids[container.GetName()] = container.GetId()
		p.mu.Unlock()
	}
	p.write(l)
	if p.rules.Hang == event {
		select {}
	}
	if text, ok := p.rules.Refuse[event]; ok {
		return errors.New(text)
	}
	return nil
}

func (p *plugin) Configure(_ context.Context, config, runtime, version string) (api.EventMask, error) {
	if config != "" {
		if err := json.Unmarshal([]byte(config), &p.rules); err != nil {
			return 0, err
		}
	}
	p.write(line{Event: "Configure", Text: runtime + " " + version})
	if p.rules.Events == "" {
		return 0, nil
	}
	return api.ParseEventMask(p.rules.Events)
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	l := line{Event: "Synchronize"}
	for _, pod := range pods {
		l.Pods = append(l.Pods, pod.GetId())
	}
	for _, container := range containers {
		l.Containers = append(l.Containers, container.GetId())
		p.ids[container.GetName()] = container.GetId()
	}
	p.write(l)
	if p.rules.Hold != "" {
		for {
			if _, err := os.Stat(p.rules.Hold); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if p.rules.Ask != "" {
		go p.ask()
	}
	return nil, nil
}

// ask has the runtime change a container of its own accord.
func (p *plugin) ask() {
	for {
		text, err := os.ReadFile(p.rules.Ask)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		update := &api.ContainerUpdate{}
		if err := json.Unmarshal(text, update); err != nil {
			panic(err)
		}
		failed, err := p.stub.UpdateContainers([]*api.ContainerUpdate{update})
		p.write(line{Event: "Asked", Text: fmt.Sprintf("%d failed, %v", len(failed), err)})
		return
	}
}

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("RunPodSandbox", pod, nil)
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, _, resources *api.LinuxResources) error {
	p.write(line{Event: "Limits", Limit: resources.GetMemory().GetLimit().GetValue()})
	return p.told("UpdatePodSandbox", pod, nil)
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("PostUpdatePodSandbox", pod, nil)
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("StopPodSandbox", pod, nil)
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("RemovePodSandbox", pod, nil)
}

func (p *plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	if err := p.told("CreateContainer", pod, container); err != nil {
		return nil, nil, err
	}
	if p.rules.Only != "" && p.rules.Only != container.GetName() {
		return nil, nil, nil
	}
	var updates []*api.ContainerUpdate
	if p.rules.Also != nil {
		updates = append(updates, &api.ContainerUpdate{
			ContainerId: p.ids[p.rules.AlsoOf],
			Linux:       &api.LinuxContainerUpdate{Resources: p.rules.Also},
		})
	}
	return p.rules.Adjust, updates, nil
}

func (p *plugin) PostCreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.told("PostCreateContainer", pod, container)
}

func (p *plugin) StartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.told("StartContainer", pod, container)
}

func (p *plugin) PostStartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.told("PostStartContainer", pod, container)
}

func (p *plugin) UpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container, _ *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	if err := p.told("UpdateContainer", pod, container); err != nil {
		return nil, err
	}
	if p.rules.Update == nil {
		return nil, nil
	}
	return []*api.ContainerUpdate{{
		ContainerId: container.GetId(),
		Linux:       &api.LinuxContainerUpdate{Resources: p.rules.Update},
	}}, nil
}

func (p *plugin) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.told("PostUpdateContainer", pod, container)
}

func (p *plugin) StopContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) ([]*api.ContainerUpdate, error) {
	return nil, p.told("StopContainer", pod, container)
}

func (p *plugin) RemoveContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.told("RemoveContainer", pod, container)
}

func (p *plugin) ValidateContainerAdjustment(_ context.Context, request *api.ValidateContainerAdjustmentRequest) error {
	env := request.GetOwners().GetOwners()[request.GetContainer().GetId()].GetCompound()[api.Field_Env.Key()]
	text, err := json.Marshal(env.GetOwners())
	if err != nil {
		return err
	}
	p.write(line{Event: "Validate", Text: string(text)})
	if p.rules.Reject != "" {
		return errors.New(p.rules.Reject)
	}
	return nil
}

func run() error {
	name := flag.String("name", "", "the plugin's name")
	index := flag.String("idx", "", "its index")
	socket := flag.String("socket", "", "where the runtime is")
	file := flag.String("rules", "", "what it does")
	flag.Parse()
	p := &plugin{ids: map[string]string{}}
	var options []stub.Option
	if *file != "" {
		text, err := os.ReadFile(*file)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &p.rules); err != nil {
			return err
		}
		options = append(options, stub.WithPluginName(*name), stub.WithPluginIdx(*index), stub.WithSocketPath(*socket))
		if p.rules.Strict {
			options = append(options, stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: true}))
		}
	}
	var err error
	if p.stub, err = stub.New(p, options...); err != nil {
		return err
	}
	return p.stub.Run(context.Background())
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
