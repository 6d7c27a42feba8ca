# Stands for nixpkgs where it cannot be had, so that `nix flake check --no-build` evaluates the outputs of this project.
{
  outputs = { self }:
    let
      lib = import ./lib.nix;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      pkgsFor = system: import ./pkgs.nix { inherit lib system; };
    in
    {
      lib = lib // {
        nixosSystem = { system, modules }: lib.evalModules {
          modules = [ ./nixos.nix ] ++ modules;
          specialArgs.pkgs = pkgsFor system;
        };
      };
      legacyPackages = lib.genAttrs systems pkgsFor;
    };
}
