package main

import (
	"context"
	"fmt"
	"net"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/net/multiplex"
	"github.com/containerd/ttrpc"
)

// evictor is a plugin without the stub, which can't ask for evictions. It has the container that
// its rules name stopped: one that is told of at first by a call of its own, one that comes later
// as part of its answer to the next one's creation.
type evictor struct {
	api.PluginService
	plugin  *plugin
	runtime api.RuntimeService
}

func (e *evictor) eviction() []*api.ContainerEviction {
	id := e.plugin.ids[e.plugin.rules.Evict]
	if id == "" {
		return nil
	}
	return []*api.ContainerEviction{{ContainerId: id, Reason: "too noisy"}}
}

func (e *evictor) Configure(context.Context, *api.ConfigureRequest) (*api.ConfigureResponse, error) {
	mask, err := api.ParseEventMask("CreateContainer")
	return &api.ConfigureResponse{Events: int32(mask)}, err
}

func (e *evictor) Synchronize(_ context.Context, request *api.SynchronizeRequest) (*api.SynchronizeResponse, error) {
	for _, container := range request.GetContainers() {
		e.plugin.ids[container.GetName()] = container.GetId()
	}
	if evict := e.eviction(); evict != nil {
		go func() {
			answer, err := e.runtime.UpdateContainers(context.Background(), &api.UpdateContainersRequest{Evict: evict})
			e.plugin.write(line{Event: "Asked", Text: fmt.Sprintf("%d failed, %v", len(answer.GetFailed()), err)})
		}()
	}
	e.plugin.write(line{Event: "Synchronize"})
	return &api.SynchronizeResponse{}, nil
}

func (e *evictor) CreateContainer(_ context.Context, request *api.CreateContainerRequest) (*api.CreateContainerResponse, error) {
	answer := &api.CreateContainerResponse{Evict: e.eviction()}
	return answer, e.plugin.told("CreateContainer", request.GetPod(), request.GetContainer())
}

func (e *evictor) run(ctx context.Context, name, index, socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	mux := multiplex.Multiplex(conn)
	listener, err := mux.Listen(multiplex.PluginServiceConn)
	if err != nil {
		return err
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	api.RegisterPluginService(server, e)
	calls, err := mux.Open(multiplex.RuntimeServiceConn)
	if err != nil {
		return err
	}
	e.runtime = api.NewRuntimeClient(ttrpc.NewClient(calls))
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	if _, err := e.runtime.RegisterPlugin(ctx, &api.RegisterPluginRequest{PluginName: name, PluginIdx: index}); err != nil {
		return err
	}
	return <-served
}
