/** The netns that are in use, each with its netlink sockets: opened inside it once, then used from anywhere. */
import { closeSync, fstatSync, statSync } from 'node:fs';
import type { Fault } from '../../model/errno.ts';
import { HOST_NETNS, type NetnsName } from '../../model/host.ts';
import { insideNetns, netnsPath, openNetns } from './netns.ts';
import {
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  NetlinkSocket,
  PacketSocket,
  openNetlink,
  openPacket,
} from './socket.ts';

/** One netns and ways to talk to it. */
export class KernelNetns {
  readonly name: NetnsName;
  #fd: number | undefined;
  #route: NetlinkSocket | undefined;
  #netfilter: NetlinkSocket | undefined;
  #packet: PacketSocket | undefined;
  #isInside = false;

  /** Takes over the file descriptor of the netns; undefined: the own netns, opened only when somebody asks for it. */
  constructor(name: NetnsName, fd: number | undefined) {
    this.name = name;
    this.#fd = fd;
  }

  /** A file descriptor by which the kernel knows the netns; it stays ours. */
  descriptor(): number | Fault {
    const fd = this.#fd ?? openNetns(this.name);
    if (typeof fd === 'number') this.#fd = fd;
    return fd;
  }

  /**
   * Runs `act`, which must be synchronous, in the netns; EINVAL when its path leads to something else. What is opened or run
   * by it is there already, so that much of a netns costs one way there and back.
   */
  run<T>(act: () => T): T | Fault {
    if (this.name === HOST_NETNS || this.#fd === undefined || this.#isInside) return act();
    return insideNetns(this.#fd, () => {
      this.#isInside = true;
      try {
        return act();
      } finally {
        this.#isInside = false;
      }
    });
  }

  /** Its rtnetlink socket. */
  route(): NetlinkSocket | Fault {
    const socket = this.#route ?? this.run(() => openNetlink(NETLINK_ROUTE));
    if (socket instanceof NetlinkSocket) this.#route = socket;
    return socket;
  }

  /** Its nfnetlink socket, for nf_tables and ctnetlink; EPROTONOSUPPORT when the kernel has none. */
  netfilter(): NetlinkSocket | Fault {
    const socket = this.#netfilter ?? this.run(() => openNetlink(NETLINK_NETFILTER));
    if (socket instanceof NetlinkSocket) this.#netfilter = socket;
    return socket;
  }

  /** Its packet socket, for frames of our own; kept, since closing one takes milliseconds. Needs CAP_NET_RAW. */
  packet(): PacketSocket | Fault {
    const socket = this.#packet ?? this.run(openPacket);
    if (socket instanceof PacketSocket) this.#packet = socket;
    return socket;
  }

  /** Does the name still stand for this netns? Somebody may have taken it away and made another. */
  isCurrent(): boolean {
    if (this.#fd === undefined || this.name === HOST_NETNS) return true;
    const there = statSync(netnsPath(this.name), { throwIfNoEntry: false });
    const here = fstatSync(this.#fd);
    return there !== undefined && there.ino === here.ino && there.dev === here.dev;
  }

  close(): void {
    this.#route?.close();
    this.#netfilter?.close();
    this.#packet?.close();
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}

/** The netns that were opened so far. Open ones stay alive in the kernel, so close it soon. */
export class Kernel {
  readonly #open = new Map<NetnsName, KernelNetns>();

  /** The netns with a name; ENOENT when there is none. */
  netns(name: NetnsName): KernelNetns | Fault {
    const open = this.#open.get(name);
    if (open) return open;
    const fd = name === HOST_NETNS ? undefined : openNetns(name);
    if (typeof fd === 'object') return { errno: fd.errno, text: `no netns "${name}"` };
    const netns = new KernelNetns(name, fd);
    this.#open.set(name, netns);
    return netns;
  }

  /** Gives a netns back, which `netns` would then open anew. */
  forget(name: NetnsName): void {
    this.#open.get(name)?.close();
    this.#open.delete(name);
  }

  /** Gives back those whose name now stands for something else. */
  forgetStale(): void {
    for (const [name, netns] of this.#open) if (!netns.isCurrent()) this.forget(name);
  }

  close(): void {
    for (const netns of this.#open.values()) netns.close();
    this.#open.clear();
  }
}
