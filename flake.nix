{
  description = "1Password secrets for systemd units, the way systemd hands out credentials";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forAll = function: nixpkgs.lib.genAttrs systems (system: function nixpkgs.legacyPackages.${system});
    in
    {
      packages = forAll (pkgs: rec {
        opnix = pkgs.callPackage ./nixos-module/package.nix { };
        default = opnix;
      });

      overlays.default = final: _: { opnix = final.callPackage ./nixos-module/package.nix { }; };

      nixosModules = rec {
        opnix = { imports = [ ./nixos-module ]; };
        default = opnix;
      };

      homeManagerModules.default = { imports = [ ./nixos-module/home-manager.nix ]; };

      devShells = forAll (pkgs: {
        default = pkgs.mkShell { packages = [ pkgs.cargo pkgs.clippy pkgs.rustfmt pkgs.cargo-deny pkgs.python3 pkgs.nodejs ]; };
      });

      formatter = forAll (pkgs: pkgs.nixfmt-rfc-style);

      # Virtual machines: they take KVM, and a cache of binary packages.
      checks = forAll (pkgs: {
        package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        vm = pkgs.testers.runNixOSTest (import ./tests/nixos/vm.nix { module = self.nixosModules.default; });
      });

      nixosConfigurations.hetzner-vps = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ self.nixosModules.default ./docs/examples/hetzner-vps/host.nix ];
      };
    };
}
